# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs commands in children of one process of an installed environment, which imports the package once.

It reads a JSON list of words per line, ``segan-monai`` or ``python -m MODULE`` first, and answers with the exit status.
The output goes to the file that the first argument names. It uses nothing of the checkout.
"""

import json
import os
import runpy
import sys

sys.path.pop(0)  # the folder of this file
output = sys.argv[1]
sys.argv = ["segan-monai"]

from segan_monai import register_components  # noqa: E402
from segan_monai.cli.main import main  # noqa: E402

register_components()
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        opened = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        os.dup2(opened, 1)
        os.dup2(opened, 2)
        sys.argv = json.loads(line)
        status = 0
        try:
            if sys.argv[:2] == ["python", "-m"]:
                del sys.argv[:2]
                runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
            else:
                main()
        except SystemExit as error:
            status = error.code or 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
