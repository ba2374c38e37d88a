"""Event notifications through a real server: what is set and refused, what is told of every change, and that nothing is
lost while a target is down and the server is killed."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
import urllib3
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError
from typer.testing import CliRunner

from gateway.cli import app
from tests.servers import ACCESS_KEY, REGION, SECRET_KEY, StaddleProcess, free_port

HOOK, OTHER, DOWN, THEIRS, NOWHERE = (
    f"arn:aws:sqs:{REGION}:000000000000:{name}" for name in ("hook", "other", "down", "theirs", "nowhere"))
PATIENCE_S = 30.0


class Hook:
    """A webhook: what came, in the order in which it came."""

    def __init__(self, port: int) -> None:
        self.documents: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.closed = False
        self._came = threading.Condition()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                if hook.closed:           # this connection was kept from before
                    self.close_connection = True
                    return
                body = self.rfile.read(int(self.headers["content-length"]))
                with hook._came:
                    hook.documents.append(json.loads(body))
                    hook.headers.append({name.lower(): value for name, value in self.headers.items()})
                    hook._came.notify_all()
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.closed = True
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def records(self, bucket: str) -> list[dict[str, Any]]:
        return [record for document in self.documents for record in document.get("Records", ())
                if record["s3"]["bucket"]["name"] == bucket]

    def tests(self, bucket: str) -> list[dict[str, Any]]:
        return [document for document in self.documents if document.get("Bucket") == bucket]

    def wait(self, enough: Callable[[], bool]) -> None:
        with self._came:
            assert self._came.wait_for(enough, PATIENCE_S), f"this much came: {self.documents}"

    def told(self, bucket: str, number: int) -> list[tuple[str, str]]:
        """Event and key of so many records, in the order of the log."""
        self.wait(lambda: len(self.records(bucket)) >= number)
        found = sorted(self.records(bucket), key=lambda record: record["s3"]["object"]["sequencer"])
        return [(record["eventName"], record["s3"]["object"]["key"]) for record in found]


@pytest.fixture(scope="module")
def hook() -> Iterator[Hook]:
    made = Hook(free_port())
    yield made
    made.close()


@pytest.fixture(scope="module")
def down_port() -> int:
    """Where nobody listens until a test does."""
    return free_port()


@pytest.fixture(scope="module")
def told_server(tmp_path_factory: pytest.TempPathFactory, hook: Hook, down_port: int) -> Iterator[StaddleProcess]:
    folder = tmp_path_factory.mktemp("notifications")
    settings = folder / "staddle.toml"
    hook_port = hook._server.server_port
    settings.write_text(f"""
        webhook_allow = ["127.0.0.1"]
        lifecycle_day_seconds = 1
        [webhooks.hook]
        url = "http://127.0.0.1:{hook_port}/in"
        authorization = "Bearer t0ken"
        [webhooks.other]
        url = "http://127.0.0.1:{hook_port}/other"
        [webhooks.down]
        url = "http://127.0.0.1:{down_port}/s3cret"
        [webhooks.theirs]
        url = "http://127.0.0.1:{hook_port}/theirs"
        accounts = ["somebody else's"]
        [webhooks.metadata]
        url = "http://169.254.169.254/latest/meta-data/"
        timeout_seconds = 2
        """)
    server = StaddleProcess(folder / "server", variables={"STADDLE_CONFIG": str(settings)})
    try:
        yield server.start()
    finally:
        server.kill_all()


@pytest.fixture(scope="module")
def client(told_server: StaddleProcess) -> BaseClient:
    return boto3.client("s3", endpoint_url=told_server.endpoint, region_name=REGION, aws_access_key_id=ACCESS_KEY,
                        aws_secret_access_key=SECRET_KEY, config=Config(retries={"total_max_attempts": 1}))


@pytest.fixture
def named(client: BaseClient, new_bucket_name: Callable[[], str]) -> str:
    name = new_bucket_name()
    client.create_bucket(Bucket=name)
    return name


def tell(client: BaseClient, bucket: str, *events: str, arn: str = HOOK, **more: Any) -> None:
    client.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={
        "QueueConfigurations": [{"QueueArn": arn, "Events": list(events), **more}]})


def staddle(server: StaddleProcess, *arguments: str) -> tuple[int, str]:
    ran = CliRunner().invoke(app, ["events", *arguments], env={
        "STADDLE_ENDPOINT": server.endpoint, "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "STADDLE_CONFIG": None, "COLUMNS": "250"})
    return ran.exit_code, ran.output


def test_a_configuration_is_kept_shown_and_taken_away(client: BaseClient, named: str) -> None:
    wanted = {
        "TopicConfigurations": [{"Id": "t", "TopicArn": f"arn:aws:sns:{REGION}:1:other", "Events": ["s3:ObjectRestore:*"]}],
        "QueueConfigurations": [{
            "QueueArn": HOOK, "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:Delete"],
            "Filter": {"Key": {"FilterRules": [{"Name": "suffix", "Value": ".jpg"}, {"Name": "PREFIX", "Value": "a<b/"}]}}}],
        "LambdaFunctionConfigurations": [{
            "Id": "l", "LambdaFunctionArn": f"arn:aws:lambda:{REGION}:1:function:hook", "Events": ["s3:ObjectAcl:Put"]}],
        "EventBridgeConfiguration": {},
    }
    client.put_bucket_notification_configuration(Bucket=named, NotificationConfiguration=wanted)
    found = client.get_bucket_notification_configuration(Bucket=named)
    assert len(found["QueueConfigurations"][0].pop("Id")) == 48, "one is made where none was given"
    wanted["QueueConfigurations"][0]["Filter"]["Key"]["FilterRules"] = [  # type: ignore[index]
        {"Name": "Suffix", "Value": ".jpg"}, {"Name": "Prefix", "Value": "a<b/"}]
    assert {name: found[name] for name in wanted} == wanted
    client.put_bucket_notification_configuration(Bucket=named, NotificationConfiguration={})
    assert set(client.get_bucket_notification_configuration(Bucket=named)) == {"ResponseMetadata"}


def test_the_old_operations_are_the_same(client: BaseClient, named: str) -> None:
    client.put_bucket_notification(Bucket=named, NotificationConfiguration={
        "QueueConfiguration": {"Id": "q", "Queue": HOOK, "Events": ["s3:ObjectCreated:*"]}})
    assert client.get_bucket_notification(Bucket=named)["QueueConfiguration"] == {
        "Id": "q", "Queue": HOOK, "Event": "s3:ObjectCreated:*", "Events": ["s3:ObjectCreated:*"]}
    assert client.get_bucket_notification_configuration(Bucket=named)["QueueConfigurations"][0]["QueueArn"] == HOOK


def test_only_targets_of_the_settings_are_taken(client: BaseClient, named: str) -> None:
    for arn, message, detail in (
        (NOWHERE, "Unable to validate the following destination configurations",
         {"ArgumentName1": NOWHERE, "ArgumentValue1": "The destination queue does not exist"}),
        (THEIRS, "Unable to validate the following destination configurations",
         {"ArgumentName1": THEIRS, "ArgumentValue1": "The destination queue does not exist"}),
        ("http://169.254.169.254/latest", "The ARN could not be parsed",
         {"ArgumentName": "Queue", "ArgumentValue": "http://169.254.169.254/latest"}),
    ):
        with pytest.raises(ClientError) as refused:
            tell(client, named, "s3:ObjectCreated:*", arn=arn)
        assert refused.value.response["Error"] == {"Code": "InvalidArgument", "Message": message, **detail}
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert "QueueConfigurations" not in client.get_bucket_notification_configuration(Bucket=named)
    client.put_bucket_notification_configuration(
        Bucket=named, SkipDestinationValidation=True,
        NotificationConfiguration={"QueueConfigurations": [{"QueueArn": NOWHERE, "Events": ["s3:ObjectCreated:*"]}]})
    assert client.get_bucket_notification_configuration(Bucket=named)["QueueConfigurations"][0]["QueueArn"] == NOWHERE
    client.put_object(Bucket=named, Key="told to nobody", Body=b"")


def test_every_change_of_an_object_is_told(client: BaseClient, named: str, hook: Hook, told_server: StaddleProcess) -> None:
    tell(client, named, "s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:ObjectTagging:*", "s3:ObjectAcl:Put",
         "s3:LifecycleTransition", Id="all of it")
    hook.wait(lambda: bool(hook.tests(named)))
    assert hook.tests(named)[0]["Event"] == "s3:TestEvent"
    put = client.put_object(Bucket=named, Key="a b/ü", Body=b"hello")
    client.copy_object(Bucket=named, Key="copy", CopySource={"Bucket": named, "Key": "a b/ü"})
    upload = client.create_multipart_upload(Bucket=named, Key="parts")["UploadId"]
    part = client.upload_part(Bucket=named, Key="parts", UploadId=upload, PartNumber=1, Body=b"x" * 100)
    client.complete_multipart_upload(Bucket=named, Key="parts", UploadId=upload, MultipartUpload={
        "Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]})
    form = client.generate_presigned_post(named, "form")
    posted = urllib3.request("POST", form["url"], fields={**form["fields"], "file": ("f", b"bytes")})
    assert posted.status == 204
    client.put_object_tagging(Bucket=named, Key="copy", Tagging={"TagSet": [{"Key": "k", "Value": "v"}]})
    client.delete_object_tagging(Bucket=named, Key="copy")
    client.delete_object(Bucket=named, Key="copy")
    client.delete_object(Bucket=named, Key="never there")
    client.delete_objects(Bucket=named, Delete={"Objects": [{"Key": "form"}, {"Key": "never there"}]})
    wanted = [
        ("ObjectCreated:Put", "a+b/%C3%BC"), ("ObjectCreated:Copy", "copy"), ("ObjectCreated:CompleteMultipartUpload", "parts"),
        ("ObjectCreated:Post", "form"), ("ObjectTagging:Put", "copy"), ("ObjectTagging:Delete", "copy"),
        ("ObjectRemoved:Delete", "copy"), ("ObjectRemoved:Delete", "form")]
    assert hook.told(named, len(wanted)) == wanted
    (first,) = [record for record in hook.records(named) if record["eventName"] == "ObjectCreated:Put"]
    assert first["requestParameters"] == {"sourceIPAddress": "127.0.0.1"}
    assert first["responseElements"] == {"x-amz-request-id": put["ResponseMetadata"]["RequestId"],
                                         "x-amz-id-2": put["ResponseMetadata"]["HostId"]}
    assert first["s3"]["configurationId"] == "all of it"
    assert first["s3"]["object"]["size"] == 5
    assert first["s3"]["object"]["eTag"] == put["ETag"].strip('"')
    assert hook.headers[-1]["authorization"] == "Bearer t0ken"


def test_versions_and_what_a_lifecycle_does_are_told(client: BaseClient, named: str, hook: Hook) -> None:
    tell(client, named, "s3:ObjectRemoved:*", "s3:LifecycleExpiration:*")
    client.put_bucket_versioning(Bucket=named, VersioningConfiguration={"Status": "Enabled"})
    version = client.put_object(Bucket=named, Key="k", Body=b"1")["VersionId"]
    marker = client.delete_object(Bucket=named, Key="k")["VersionId"]
    client.delete_object(Bucket=named, Key="k", VersionId=version)
    client.put_object(Bucket=named, Key="due", Body=b"1")
    client.put_bucket_lifecycle_configuration(Bucket=named, LifecycleConfiguration={
        "Rules": [{"ID": "r", "Status": "Enabled", "Filter": {"Prefix": "due"}, "Expiration": {"Days": 1}}]})
    wanted = [("ObjectRemoved:DeleteMarkerCreated", "k"), ("ObjectRemoved:Delete", "k"),
              ("LifecycleExpiration:DeleteMarkerCreated", "due")]
    assert hook.told(named, len(wanted)) == wanted
    records = {record["eventName"]: record for record in hook.records(named)}
    assert records["ObjectRemoved:DeleteMarkerCreated"]["s3"]["object"]["versionId"] == marker
    assert records["ObjectRemoved:Delete"]["s3"]["object"]["versionId"] == version
    assert records["LifecycleExpiration:DeleteMarkerCreated"]["userIdentity"] == {"principalId": "s3.amazonaws.com"}


def test_a_rename_is_told_at_both_ends_and_an_append_as_a_write(client: BaseClient, named: str, hook: Hook) -> None:
    tell(client, named, "s3:ObjectCreated:*", "s3:ObjectRemoved:*")
    client.put_object(Bucket=named, Key="old", Body=b"12345")
    client.put_object(Bucket=named, Key="old", Body=b"678", WriteOffsetBytes=5)
    client.rename_object(Bucket=named, Key="new", RenameSource=f"/{named}/old")
    assert hook.told(named, 4) == [("ObjectCreated:Put", "old"), ("ObjectCreated:Put", "old"), ("ObjectCreated:Copy", "new"),
                                   ("ObjectRemoved:Delete", "old")]


def test_filters_choose_and_rules_go_to_their_targets(client: BaseClient, named: str, hook: Hook) -> None:
    def rule(arn: str, name: str, value: str) -> dict[str, Any]:
        return {"QueueArn": arn, "Events": ["s3:ObjectCreated:*"],
                "Filter": {"Key": {"FilterRules": [{"Name": name, "Value": value}]}}}
    with pytest.raises(ClientError, match="ambiguously defined"):
        client.put_bucket_notification_configuration(Bucket=named, NotificationConfiguration={
            "QueueConfigurations": [rule(HOOK, "prefix", "a/"), rule(OTHER, "suffix", ".jpg")]})
    client.put_bucket_notification_configuration(Bucket=named, NotificationConfiguration={
        "QueueConfigurations": [rule(HOOK, "prefix", "a/"), rule(OTHER, "prefix", "b/")]})
    for key in ("a/1", "c/1", "b/1", "a/2"):
        client.put_object(Bucket=named, Key=key, Body=b"x")
    assert hook.told(named, 3) == [("ObjectCreated:Put", key) for key in ("a/1", "b/1", "a/2")]


def test_nothing_is_lost_while_a_target_is_down_and_the_server_is_killed(
    client: BaseClient, named: str, told_server: StaddleProcess, down_port: int,
) -> None:
    tell(client, named, "s3:ObjectCreated:*", "s3:ObjectRemoved:*", arn=DOWN)
    for number in range(20):
        client.put_object(Bucket=named, Key=f"k{number % 4}", Body=bytes([number]))
    status, listed = _until(lambda: staddle(told_server, "list"), lambda found: "not reached" in found[1])
    assert status == 1, "one of them has trouble"
    assert "s3cret" not in listed
    client.delete_objects(Bucket=named, Delete={"Objects": [{"Key": f"k{number}"} for number in range(4)]})
    client.delete_bucket(Bucket=named)
    told_server.kill_all()
    assert "s3cret" not in told_server.log(10_000)
    listener = Hook(down_port)
    try:
        told_server.start()
        keys = [("ObjectCreated:Put", f"k{number % 4}") for number in range(20)]
        told = listener.told(named, 24)
        assert told[:20] == keys
        assert sorted(told[20:]) == [("ObjectRemoved:Delete", f"k{number}") for number in range(4)]
        for number in range(4):
            came = [record["s3"]["object"]["sequencer"] for record in listener.records(named)
                    if record["s3"]["object"]["key"] == f"k{number}"]
            assert came == sorted(came), "each key's in the order of the log"
        _until(lambda: staddle(told_server, "list", "--json"), lambda found: all(
            target["queued"] == 0 and not target["error"] for target in json.loads(found[1])))
    finally:
        listener.close()


def _until(look: Callable[[], Any], enough: Callable[[Any], bool]) -> Any:
    """What is looked at has no way of telling us."""
    import time

    ends = time.monotonic() + PATIENCE_S
    while not enough(found := look()):
        assert time.monotonic() < ends, found
        time.sleep(0.1)
    return found


def test_operators_try_targets_out_and_give_queues_up(
    client: BaseClient, named: str, told_server: StaddleProcess, hook: Hook,
) -> None:
    assert staddle(told_server, "test", "hook") == (0, "hook has taken a test event.\n")
    status, said = staddle(told_server, "test", "metadata")
    assert status == 1
    assert "169.254.169.254, which is not public" in said
    assert "no target" in staddle(told_server, "test", "nowhere")[1]
    tell(client, named, "s3:ObjectCreated:*", arn=DOWN)
    client.put_object(Bucket=named, Key="k", Body=b"x")
    assert staddle(told_server, "purge", "nowhere", "--yes")[0] == 1
    assert staddle(told_server, "purge", "down", "--yes") == (0, "The queue of down is empty: 2 events are given up.\n")
    listed = json.loads(staddle(told_server, "list", "--json")[1])
    assert [(target["name"], target["queued"]) for target in listed] == [
        ("down", 0), ("hook", 0), ("metadata", 0), ("other", 0), ("theirs", 0)]


def test_metrics_tell_of_each_target(told_server: StaddleProcess, hook: Hook) -> None:
    from tests.admin.asking import ask

    answered = ask(told_server, "GET", "metrics", prefix="/-/")
    assert answered.status == 200
    text = answered.body.decode()
    assert 'staddle_events_waiting{target="hook"} 0.0' in text
    assert 'staddle_events_total{outcome="delivered",target="hook"}' in text or \
           'staddle_events_total{target="hook",outcome="delivered"}' in text
