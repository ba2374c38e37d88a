// AWS SDK for JavaScript v3: buffers, streams in parts, presigned PUT, GET and form, pages, copies, conditions.
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import {
  CompleteMultipartUploadCommand, CopyObjectCommand, CreateBucketCommand, CreateMultipartUploadCommand, DeleteBucketCommand,
  DeleteObjectsCommand, GetObjectCommand, HeadObjectCommand, ListBucketsCommand, PutObjectCommand, S3Client, UploadPartCommand,
  paginateListObjectsV2, waitUntilObjectExists,
} from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";
import { createPresignedPost } from "@aws-sdk/s3-presigned-post";
import { getSignedUrl } from "@aws-sdk/s3-request-presigner";

const Bucket = process.env.BUCKET;
const endpoint = process.env.AWS_ENDPOINT_URL;

async function job(s3) {
  const read = async (Key, more = {}) =>
    Buffer.from(await (await s3.send(new GetObjectCommand({ Bucket, Key, ...more }))).Body.transformToByteArray());

  await s3.send(new CreateBucketCommand({ Bucket }));
  assert((await s3.send(new ListBucketsCommand({}))).Buckets.some((one) => one.Name === Bucket));

  const put = await s3.send(new PutObjectCommand({ Bucket, Key: "a/ü b+&.txt", Body: "text", Metadata: { colour: "blue" } }));
  assert.equal(put.ETag, `"${createHash("md5").update("text").digest("hex")}"`);
  const head = await s3.send(new HeadObjectCommand({ Bucket, Key: "a/ü b+&.txt" }));
  assert.deepEqual([head.ContentLength, head.Metadata], [4, { colour: "blue" }]);
  assert.equal((await read("a/ü b+&.txt")).toString(), "text");
  assert.equal((await read("a/ü b+&.txt", { Range: "bytes=1-2" })).toString(), "ex");

  const small = randomBytes(300_000);                   // a stream whose length is said: one PUT with a trailing checksum
  await s3.send(new PutObjectCommand({ Bucket, Key: "stream", Body: Readable.from([small]), ContentLength: small.length }));
  assert((await read("stream")).equals(small));
  const big = randomBytes(18 << 20);                    // one whose length nobody knows: parts
  const pieces = (function* () { for (let at = 0; at < big.length; at += 1 << 20) yield big.subarray(at, at + (1 << 20)); })();
  await new Upload({ client: s3, params: { Bucket, Key: "big", Body: Readable.from(pieces) }, partSize: 5 << 20, queueSize: 3 }).done();
  assert((await read("big")).equals(big));
  await s3.send(new CopyObjectCommand({ Bucket, Key: "copied", CopySource: `${Bucket}/big` }));
  assert((await read("copied")).equals(big));
  const { UploadId } = await s3.send(new CreateMultipartUploadCommand({ Bucket, Key: "parts", ChecksumAlgorithm: "SHA256" }));
  const part = await s3.send(new UploadPartCommand({ Bucket, Key: "parts", UploadId, PartNumber: 1, Body: small, ChecksumAlgorithm: "SHA256" }));
  await s3.send(new CompleteMultipartUploadCommand({
    Bucket, Key: "parts", UploadId, MultipartUpload: { Parts: [{ PartNumber: 1, ETag: part.ETag, ChecksumSHA256: part.ChecksumSHA256 }] } }));
  assert((await read("parts")).equals(small));

  const first = await getSignedUrl(s3, new PutObjectCommand({ Bucket, Key: "linked" }), { expiresIn: 60 });
  assert.equal((await fetch(first, { method: "PUT", body: "by link" })).status, 200);
  const second = await getSignedUrl(s3, new GetObjectCommand({ Bucket, Key: "linked" }), { expiresIn: 60 });
  assert.equal(await (await fetch(second)).text(), "by link");
  const { url, fields } = await createPresignedPost(s3, {
    Bucket, Key: "forms/${filename}", Conditions: [["content-length-range", 1, 100]], Expires: 60 });
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  form.append("file", new Blob(["posted"]), "a.txt");
  assert.equal((await fetch(url, { method: "POST", body: form })).status, 204);
  assert.equal((await read("forms/a.txt")).toString(), "posted");

  await assert.rejects(s3.send(new PutObjectCommand({ Bucket, Key: "linked", Body: "x", IfNoneMatch: "*" })), { name: "PreconditionFailed" });
  await assert.rejects(read("nothing"), { name: "NoSuchKey" });
  await assert.rejects(s3.send(new HeadObjectCommand({ Bucket, Key: "nothing" })), { name: "NotFound" });
  await assert.rejects(s3.send(new DeleteBucketCommand({ Bucket })), { name: "BucketNotEmpty" });
  await waitUntilObjectExists({ client: s3, minDelay: 1, maxWaitTime: 5 }, { Bucket, Key: "linked" });

  const keys = [];
  for await (const page of paginateListObjectsV2({ client: s3, pageSize: 3 }, { Bucket })) keys.push(...page.Contents.map((one) => one.Key));
  assert.deepEqual(keys, ["a/ü b+&.txt", "big", "copied", "forms/a.txt", "linked", "parts", "stream"]);
  const gone = await s3.send(new DeleteObjectsCommand({ Bucket, Delete: { Objects: keys.map((Key) => ({ Key })) } }));
  assert.equal(gone.Deleted.length, keys.length);
  await s3.send(new DeleteBucketCommand({ Bucket }));
}

await job(new S3Client({ endpoint }));                                               // an IP address: path style
await job(new S3Client({ endpoint, forcePathStyle: true, requestChecksumCalculation: "WHEN_REQUIRED" }));
