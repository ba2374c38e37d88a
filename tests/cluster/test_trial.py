"""What `make cluster` runs: it says where everything is, ends at Ctrl-C, and goes on the next time with what was there."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from tests.servers import ROOT, end_with_parent, free_port

pytestmark = pytest.mark.slow


class Trial:
    def __init__(self, folder: Path) -> None:
        self.port, self.cluster_port = free_port(), free_port()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("STADDLE_")}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "gateway.cluster.trial", "--data", str(folder), "--machines", "1",
             "--port", str(self.port), "--cluster-port", str(self.cluster_port), "log_level=warning"],
            stdout=subprocess.PIPE, text=True, preexec_fn=end_with_parent,
            env=environment | {"PYTHONPATH": str(ROOT)})
        assert self.process.stdout is not None
        said = ""
        for line in self.process.stdout:
            said += line
            if "Ctrl-C" in line:
                break
        found = re.search(r"AWS_ACCESS_KEY_ID=(\S+) AWS_SECRET_ACCESS_KEY=(\S+)", said)
        assert found is not None, said
        assert f"n1  http://127.0.0.1:{self.port}" in said
        self.key = found[1], found[2]
        self.client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{self.port}", aws_access_key_id=found[1],
                                   aws_secret_access_key=found[2], region_name="us-east-1")

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        said, _ = self.process.communicate(timeout=60)
        assert "stopping" in said
        return self.process.returncode


def test_it_goes_on_with_the_same_cluster_after_ctrl_c(tmp_path: Path) -> None:
    first = Trial(tmp_path)
    first.client.create_bucket(Bucket="kept")
    first.client.put_object(Bucket="kept", Key="k", Body=b"kept")
    assert first.interrupt() == 0
    second = Trial(tmp_path)
    assert second.key == first.key
    assert second.client.get_object(Bucket="kept", Key="k")["Body"].read() == b"kept"
    assert second.interrupt() == 0
