// minio-js: region look-up, streams in parts, resumable lists, copies with conditions, links, forms, bulk deletes.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import { Client, CopyConditions } from "minio";

const bucket = process.env.BUCKET;
const where = new URL(process.env.AWS_ENDPOINT_URL);
const s3 = new Client({
  endPoint: where.hostname, port: Number(where.port), useSSL: where.protocol === "https:",
  accessKey: process.env.AWS_ACCESS_KEY_ID, secretKey: process.env.AWS_SECRET_ACCESS_KEY, partSize: 5 << 20 });

const gather = async (stream) => { const all = []; for await (const one of stream) all.push(one); return all; };
const read = async (key) => Buffer.concat(await gather(await s3.getObject(bucket, key)));

await s3.makeBucket(bucket);
assert(await s3.bucketExists(bucket));
assert(!(await s3.bucketExists(`${bucket}-other`)));
const big = randomBytes(12 << 20);
await s3.putObject(bucket, "big", Readable.from([big]), big.length, { "x-amz-meta-colour": "blue", "content-type": "x/y" });
assert((await read("big")).equals(big));
await s3.putObject(bucket, "unknown", Readable.from([big]));
assert((await read("unknown")).equals(big));
const stat = await s3.statObject(bucket, "big");
assert.deepEqual([stat.size, stat.metaData.colour, stat.metaData["content-type"]], [big.length, "blue", "x/y"]);
const range = Buffer.concat(await gather(await s3.getPartialObject(bucket, "big", 5 << 20, 100)));
assert(range.equals(big.subarray(5 << 20, (5 << 20) + 100)));

const names = ["a b", "ü/+&%25", "q'\"uote", "x+y/z"].map((name) => `odd/${name}`).sort();
for (const name of names) await s3.putObject(bucket, name, name);
for (const name of names) assert.equal((await read(name)).toString(), name);
for (const list of ["listObjects", "listObjectsV2"]) {
  const found = await gather(s3[list](bucket, "odd/", true));
  assert.deepEqual(found.map((one) => one.name).sort(), names);
  assert.deepEqual((await gather(s3[list](bucket, "", false))).filter((one) => one.prefix).map((one) => one.prefix), ["odd/"]);
}
const conditions = new CopyConditions();
conditions.setMatchETag(stat.etag);
await s3.copyObject(bucket, "copied", `/${bucket}/big`, conditions);
assert((await read("copied")).equals(big));

assert.equal((await fetch(await s3.presignedPutObject(bucket, "linked", 60), { method: "PUT", body: "by link" })).status, 200);
assert.equal(await (await fetch(await s3.presignedGetObject(bucket, "linked", 60))).text(), "by link");
const policy = s3.newPostPolicy();
policy.setBucket(bucket);
policy.setKey("posted");
policy.setExpires(new Date(Date.now() + 60_000));
const { postURL, formData } = await s3.presignedPostPolicy(policy);
const form = new FormData();
for (const [name, value] of Object.entries(formData)) form.append(name, value);
form.append("file", new Blob(["posted"]));
assert.equal((await fetch(postURL, { method: "POST", body: form })).status, 204);
await s3.setObjectTagging(bucket, "posted", { a: "b c" });
assert.deepEqual((await s3.getObjectTagging(bucket, "posted"))[0], { Key: "a", Value: "b c" });

await assert.rejects(s3.statObject(bucket, "nothing"), { code: "NotFound" });
await assert.rejects(s3.removeBucket(bucket), { code: "BucketNotEmpty" });
assert.deepEqual(await gather(s3.listIncompleteUploads(bucket, "", true)), []);
await s3.removeObjects(bucket, (await gather(s3.listObjectsV2(bucket, "", true))).map((one) => one.name));
await s3.removeBucket(bucket);
