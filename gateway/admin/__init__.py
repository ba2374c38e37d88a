"""The admin API: everything that a keeper can see and do, as JSON over HTTP under `/-/admin/`.

endpoints.py   the table: one row for each endpoint; routes and docs/ADMIN_API.md are made from it
api.py         the one door: signature, admin, row, fields, answer, error, log line; nothing is reached around it
values/        what is asked and answered, as structs; the command line decodes answers with them
context.py     what an endpoint works with: the services of this process, and who asks
errors.py      what an endpoint refuses, with the names that S3 does not have
The rest       one file to a topic; each function is one endpoint, its first line is its summary in the documentation

Endpoints change metadata by the same commands as S3 does, so what S3's rules refuse is refused here too.
"""
