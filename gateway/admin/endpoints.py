"""The table of endpoints. Routes, docs/ADMIN_API.md and the test that walks over every door are made from it.

Paths are those of the command line: `staddle user create` asks POST /-/admin/user/create. No part of a path is a name,
since names of objects hold any character.
"""

from gateway.admin import access, background, backups, buckets, checking, cluster, collecting, events, nodes, objects, scrubbing, users
from gateway.admin.table import Endpoint

_USER = ("NoSuchUser", "ConfiguredIdentity", "NotYetEverywhere")
_KEY = ("NoSuchAccessKey", "ConfiguredIdentity", "NotYetEverywhere")
_OBJECT = ("NoSuchBucket", "NoSuchKey", "NoSuchVersion")

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "user/list", users.list_users),
    Endpoint("GET", "user/show", users.show_user, ("NoSuchUser",)),
    Endpoint("POST", "user/create", users.create_user, ("UserExists",)),
    Endpoint("POST", "user/change", users.change_user, _USER),
    Endpoint("POST", "user/delete", users.delete_user, _USER),
    Endpoint("GET", "user/policy/list", access.list_policies, ("NoSuchUser",)),
    Endpoint("POST", "user/policy/set", access.set_policy, (*_USER, "MalformedPolicy")),
    Endpoint("POST", "user/policy/remove", access.remove_policy, (*_USER, "NoSuchPolicy")),
    Endpoint("GET", "explain", access.explain, ("NoSuchBucket", "NoSuchUser")),
    Endpoint("GET", "key/list", users.list_keys, ("NoSuchUser",)),
    Endpoint("POST", "key/create", users.create_key, ("NoSuchUser", "ConfiguredIdentity", "AccessKeyExists")),
    Endpoint("POST", "key/change", users.change_key, _KEY),
    Endpoint("POST", "key/rotate", users.rotate_key, ("NoSuchAccessKey", "ConfiguredIdentity")),
    Endpoint("POST", "key/delete", users.delete_key, _KEY),
    Endpoint("GET", "bucket/list", buckets.list_buckets),
    Endpoint("GET", "bucket/stat", buckets.stat_bucket, ("NoSuchBucket",)),
    Endpoint("GET", "bucket/usage", buckets.usage),
    Endpoint("POST", "bucket/create", buckets.create_bucket, ("InvalidBucketName", "BucketAlreadyExists", "NoSuchUser")),
    Endpoint("POST", "bucket/set", buckets.set_bucket, ("NoSuchBucket",)),
    Endpoint("POST", "bucket/delete", buckets.delete_bucket, ("NoSuchBucket", "BucketNotEmpty")),
    Endpoint("GET", "object/list", objects.list_objects, ("NoSuchBucket",)),
    Endpoint("GET", "object/stat", objects.stat_object, _OBJECT),
    Endpoint("POST", "object/verify", objects.verify_object, _OBJECT),
    Endpoint("POST", "object/delete", objects.delete_object, ("NoSuchBucket", "KeyTooLongError", "ObjectLocked")),
    Endpoint("GET", "node/list", nodes.list_nodes, ("NoSuchNode",)),
    Endpoint("POST", "node/drain", nodes.drain_node, ("NoSuchNode",)),
    Endpoint("POST", "node/undrain", nodes.undrain_node, ("NoSuchNode",)),
    Endpoint("POST", "node/read-only", nodes.set_read_only, ("NoSuchNode",)),
    Endpoint("POST", "node/remove", nodes.remove_node, ("NoSuchNode", "NodeInUse")),
    Endpoint("GET", "node/damage", scrubbing.list_damage, ("NoSuchNode",)),
    Endpoint("POST", "node/compact", scrubbing.compact, ("NoSuchNode",)),
    Endpoint("GET", "gc/report", collecting.report_gc),
    Endpoint("POST", "gc/run", collecting.run_gc),
    Endpoint("GET", "scrub/status", scrubbing.scrub_status, ("NoSuchNode",)),
    Endpoint("POST", "scrub/start", scrubbing.start_scrub, ("NoSuchNode",)),
    Endpoint("POST", "scrub/stop", scrubbing.stop_scrub, ("NoSuchNode",)),
    Endpoint("POST", "scrub/run", scrubbing.run_scrub, ("NoSuchNode",)),
    Endpoint("POST", "fsck/run", checking.run_fsck),
    Endpoint("GET", "backup/list", backups.list_backups),
    Endpoint("POST", "backup/create", backups.create_backup, ("BackupExists",)),
    Endpoint("GET", "backup/download", backups.download_backup, ("NoSuchBackup",)),
    Endpoint("POST", "backup/delete", backups.delete_backup, ("NoSuchBackup",)),
    Endpoint("GET", "events/list", events.list_targets),
    Endpoint("POST", "events/test", events.test_target, ("NoSuchTarget", "TargetFailed")),
    Endpoint("POST", "events/purge", events.purge_target, ("NoSuchTarget",)),
    Endpoint("GET", "cluster/status", cluster.status),
    Endpoint("POST", "cluster/token", cluster.create_token, ("NoCluster",)),
    Endpoint("GET", "cluster/tokens", cluster.list_tokens),
    Endpoint("POST", "cluster/revoke", cluster.revoke_token, ("NoSuchToken",)),
    Endpoint("POST", "cluster/remove", cluster.remove_member, ("NoSuchMember",)),
    Endpoint("GET", "duty/list", background.list_duties),
    Endpoint("GET", "lifecycle/status", background.lifecycle_status),
    Endpoint("GET", "meta/status", nodes.metadata_status),
    Endpoint("GET", "config/show", nodes.config_in_force),
    Endpoint("GET", "version", nodes.version),
)
