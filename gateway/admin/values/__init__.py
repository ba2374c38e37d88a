"""What the endpoints are asked and answer, as structs: their JSON form is what docs/ADMIN_API.md describes.

The command line decodes answers with the same structs, so this module imports nothing heavy. Times are text in ISO 8601
(UTC), sizes are bytes. Lists that may be long come in pages: `next`, given back as `after`, goes on after them.

One file for each part of the API. `values.UserInfo` reads well, so callers see all of them here.
"""

from gateway.admin.values.background import *  # noqa: F403
from gateway.admin.values.backups import *  # noqa: F403
from gateway.admin.values.bucket_logs import *  # noqa: F403
from gateway.admin.values.buckets import *  # noqa: F403
from gateway.admin.values.care import *  # noqa: F403
from gateway.admin.values.cluster import *  # noqa: F403
from gateway.admin.values.common import *  # noqa: F403
from gateway.admin.values.events import *  # noqa: F403
from gateway.admin.values.fsck import *  # noqa: F403
from gateway.admin.values.nodes import *  # noqa: F403
from gateway.admin.values.objects import *  # noqa: F403
from gateway.admin.values.quotas import *  # noqa: F403
from gateway.admin.values.users import *  # noqa: F403
