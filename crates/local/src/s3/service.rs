//! Operations of S3 over files. [`ObjectStore`]
//!
//! On AWS a bucket may have versioning, encryption, access control, tags and lifecycle rules; here no bucket has any of
//! them. Operations that only read them return this; operations that change them return 501.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::{Bytes, BytesMut};
use futures::{Stream, stream};
use http::HeaderMap;
use millrace_shared::hash::to_hex;
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, Bucket, ChecksumType, CommonPrefix,
    CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CompletedPart, CopyObjectInput, CopyObjectOutput,
    CopyObjectResult, CopyPartResult, CopySource, CreateBucketInput, CreateBucketOutput, CreateMultipartUploadInput,
    CreateMultipartUploadOutput, DeleteBucketInput, DeleteBucketOutput, DeleteObjectInput, DeleteObjectOutput,
    DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, ETag, ETagCondition, EncodingType, Error as DeleteError,
    GetBucketEncryptionInput, GetBucketEncryptionOutput, GetBucketLocationInput, GetBucketLocationOutput,
    GetBucketVersioningInput, GetBucketVersioningOutput, GetObjectInput, GetObjectOutput, HeadBucketInput,
    HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListBucketsInput, ListBucketsOutput,
    ListMultipartUploadsInput, ListMultipartUploadsOutput, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input,
    ListObjectsV2Output, ListPartsInput, ListPartsOutput, MetadataDirective, MultipartUpload, Object,
    ObjectStorageClass, Part, PutObjectInput, PutObjectOutput, Range, StorageClass, StreamingBlob, UploadPartCopyInput,
    UploadPartCopyOutput, UploadPartInput, UploadPartOutput,
};
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::condition::{ReadCondition, WriteCondition};
use super::listing::{ListingPage, ListingRequest, url_encoded};
use super::object_file::{
    ExpectedBody, ObjectChecksums, ObjectFiles, ObjectHeaders, PendingUpload, ReceivedBody, StoredObject, StoredPart,
    etag_of_parts,
};
use super::unsign::CONTENT_SHA256;

/// The maximum number of keys, uploads or parts per page.
const PAGE: i32 = 1_000;
const MAX_PARTS: i32 = 10_000;
/// The minimum size of every part but the last.
const PART_BYTES: u64 = 5 * 1024 * 1024;
const READ_BYTES: usize = 256 * 1024;

/// The buckets of one directory.
#[derive(Debug)]
pub(super) struct ObjectStore {
    files: ObjectFiles,
}

impl ObjectStore {
    pub(super) fn new(files: ObjectFiles) -> Self {
        Self { files }
    }

    /// Returns a page of a bucket's keys, and the page's keys as objects.
    async fn page(&self, bucket: &str, request: &ListingRequest) -> S3Result<(ListingPage, Vec<Object>)> {
        let page = request.page(&self.files.keys(bucket, &request.prefix)?);
        let mut objects = Vec::with_capacity(page.keys.len());
        for key in &page.keys {
            let found = match self.files.find(bucket, key).await {
                Ok(found) => found,
                // The object was deleted in the meantime.
                Err(error) if *error.code() == S3ErrorCode::NoSuchKey => continue,
                Err(error) => return Err(error),
            };
            objects.push(Object {
                key: Some(key.clone()),
                e_tag: Some(ETag::Strong(found.attributes.etag)),
                last_modified: Some(found.modified.into()),
                size: Some(length(found.size)?),
                storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
                ..Object::default()
            });
        }
        Ok((page, objects))
    }

    async fn source(&self, source: &CopySource, condition: ReadCondition) -> S3Result<StoredObject> {
        let CopySource::Bucket { bucket, key, .. } = source else {
            return Err(s3_error!(NotImplemented, "unsupported copy source: expected a bucket and a key"));
        };
        let found = self.files.find(bucket, key).await?;
        condition.check_source(&found.attributes.etag, found.modified)?;
        Ok(found)
    }

    async fn receive_range(
        &self,
        found: StoredObject,
        range: Option<Range>,
        expected: ExpectedBody,
    ) -> S3Result<ReceivedBody> {
        let (first, size) = bounds(range, found.size)?;
        let bytes = Box::pin(read(found.file, first, size).await?);
        self.files.receive(bytes, ExpectedBody { length: Some(length(size)?), ..expected }).await
    }
}

#[async_trait::async_trait]
impl S3 for ObjectStore {
    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        self.files.create_bucket(&req.input.bucket)?;
        let location = Some(format!("/{}", req.input.bucket));
        Ok(S3Response::new(CreateBucketOutput { location }))
    }

    async fn delete_bucket(&self, req: S3Request<DeleteBucketInput>) -> S3Result<S3Response<DeleteBucketOutput>> {
        self.files.delete_bucket(&req.input.bucket).await?;
        Ok(S3Response::new(DeleteBucketOutput {}))
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.files.bucket(&req.input.bucket)?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn list_buckets(&self, _: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        let buckets = self.files.buckets()?.into_iter().map(|(name, created)| Bucket {
            name: Some(name),
            creation_date: Some(created.into()),
            ..Bucket::default()
        });
        Ok(S3Response::new(ListBucketsOutput { buckets: Some(buckets.collect()), ..ListBucketsOutput::default() }))
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.files.bucket(&req.input.bucket)?;
        Ok(S3Response::new(GetBucketLocationOutput::default()))
    }

    async fn get_bucket_versioning(
        &self,
        req: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        self.files.bucket(&req.input.bucket)?;
        Ok(S3Response::new(GetBucketVersioningOutput::default()))
    }

    async fn get_bucket_encryption(
        &self,
        req: S3Request<GetBucketEncryptionInput>,
    ) -> S3Result<S3Response<GetBucketEncryptionOutput>> {
        self.files.bucket(&req.input.bucket)?;
        Err(s3_error!(ServerSideEncryptionConfigurationNotFoundError, "local buckets are not encrypted"))
    }

    async fn list_objects(&self, req: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
        let input = req.input;
        let max_keys = page_size(input.max_keys, "max-keys")?;
        let request = ListingRequest {
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone(),
            after: input.marker.clone().unwrap_or_default(),
            limit: usize::try_from(max_keys).unwrap_or_default(),
        };
        let encode = key_encoder(input.encoding_type.as_ref())?;
        let (page, objects) = self.page(&input.bucket, &request).await?;
        Ok(S3Response::new(ListObjectsOutput {
            name: Some(input.bucket),
            prefix: Some(encode(request.prefix)),
            marker: Some(encode(request.after)),
            max_keys: Some(max_keys),
            is_truncated: Some(page.next.is_some()),
            contents: Some(encoded_keys(objects, encode)),
            common_prefixes: Some(prefixes(page.prefixes, encode)),
            delimiter: input.delimiter.map(encode),
            next_marker: page.next.map(encode),
            encoding_type: input.encoding_type,
            ..ListObjectsOutput::default()
        }))
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        let max_keys = page_size(input.max_keys, "max-keys")?;
        let after = match &input.continuation_token {
            Some(token) => decode_continuation_token(token)?,
            None => input.start_after.clone().unwrap_or_default(),
        };
        let request = ListingRequest {
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone(),
            after,
            limit: usize::try_from(max_keys).unwrap_or_default(),
        };
        let encode = key_encoder(input.encoding_type.as_ref())?;
        let (page, objects) = self.page(&input.bucket, &request).await?;
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(encode(request.prefix)),
            max_keys: Some(max_keys),
            key_count: i32::try_from(objects.len() + page.prefixes.len()).ok(),
            continuation_token: input.continuation_token,
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next.map(|next| BASE64_URL_SAFE_NO_PAD.encode(next)),
            contents: Some(encoded_keys(objects, encode)),
            common_prefixes: Some(prefixes(page.prefixes, encode)),
            delimiter: input.delimiter.map(encode),
            encoding_type: input.encoding_type,
            start_after: input.start_after.map(encode),
            ..ListObjectsV2Output::default()
        }))
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let sha256 = content_sha256(&req.headers);
        let input = req.input;
        storage_class(input.storage_class.as_ref())?;
        self.files.bucket(&input.bucket)?;
        let expected = ExpectedBody {
            length: input.content_length,
            md5: input.content_md5,
            sha256,
            checksums: ObjectChecksums {
                crc32: input.checksum_crc32,
                crc32c: input.checksum_crc32c,
                crc64nvme: input.checksum_crc64nvme,
                sha1: input.checksum_sha1,
                sha256: input.checksum_sha256,
            },
            algorithm: input.checksum_algorithm.map(|algorithm| algorithm.as_str().to_owned()),
        };
        let headers = ObjectHeaders {
            metadata: input.metadata,
            cache_control: input.cache_control,
            content_disposition: input.content_disposition,
            content_encoding: input.content_encoding,
            content_language: input.content_language,
            content_type: input.content_type,
            expires: input.expires,
            website_redirect_location: input.website_redirect_location,
        };
        let condition = WriteCondition { matching: input.if_match, none_matching: input.if_none_match };
        let body = match input.body {
            Some(body) => self.files.receive(body, expected).await?,
            None => self.files.receive(nothing(), expected).await?,
        };
        let (etag, sums) = (to_hex(&body.md5), body.checksums.clone());
        let name = (input.bucket.as_str(), input.key.as_str());
        self.files.put(name, body, (etag.clone(), headers), &condition).await?;
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(ETag::Strong(etag)),
            checksum_type: checksum_type(&sums),
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
            ..PutObjectOutput::default()
        }))
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = req.input;
        let found = self.files.find(&input.bucket, &input.key).await?;
        let condition = ReadCondition {
            matching: input.if_match,
            none_matching: input.if_none_match,
            modified_since: input.if_modified_since,
            unmodified_since: input.if_unmodified_since,
        };
        condition.check(&found.attributes.etag, found.modified).map_err(|error| tagged(error, &found))?;
        let (first, size) = bounds(input.range, found.size)?;
        let whole = found.size;
        let sums = if input.checksum_mode.is_some() && size == whole {
            found.attributes.checksums
        } else {
            ObjectChecksums::default()
        };
        let headers = found.attributes.headers;
        let body = read(found.file, first, size).await?;
        Ok(S3Response::new(GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            body: Some(StreamingBlob::wrap(body)),
            content_length: Some(length(size)?),
            content_range: input.range.map(|_| format!("bytes {first}-{}/{whole}", first + size - 1)),
            e_tag: Some(ETag::Strong(found.attributes.etag)),
            last_modified: Some(found.modified.into()),
            checksum_type: checksum_type(&sums),
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
            metadata: headers.metadata,
            cache_control: headers.cache_control,
            content_disposition: headers.content_disposition,
            content_encoding: headers.content_encoding,
            content_language: headers.content_language,
            content_type: headers.content_type,
            expires: headers.expires,
            website_redirect_location: headers.website_redirect_location,
            ..GetObjectOutput::default()
        }))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = req.input;
        let found = self.files.find(&input.bucket, &input.key).await?;
        let condition = ReadCondition {
            matching: input.if_match,
            none_matching: input.if_none_match,
            modified_since: input.if_modified_since,
            unmodified_since: input.if_unmodified_since,
        };
        condition.check(&found.attributes.etag, found.modified).map_err(|error| tagged(error, &found))?;
        let sums = if input.checksum_mode.is_some() { found.attributes.checksums } else { ObjectChecksums::default() };
        let headers = found.attributes.headers;
        Ok(S3Response::new(HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(length(found.size)?),
            e_tag: Some(ETag::Strong(found.attributes.etag)),
            last_modified: Some(found.modified.into()),
            checksum_type: checksum_type(&sums),
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
            metadata: headers.metadata,
            cache_control: headers.cache_control,
            content_disposition: headers.content_disposition,
            content_encoding: headers.content_encoding,
            content_language: headers.content_language,
            content_type: headers.content_type,
            expires: headers.expires,
            website_redirect_location: headers.website_redirect_location,
            ..HeadObjectOutput::default()
        }))
    }

    async fn copy_object(&self, req: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let input = req.input;
        storage_class(input.storage_class.as_ref())?;
        self.files.bucket(&input.bucket)?;
        let condition = ReadCondition {
            matching: input.copy_source_if_match,
            none_matching: input.copy_source_if_none_match,
            modified_since: input.copy_source_if_modified_since,
            unmodified_since: input.copy_source_if_unmodified_since,
        };
        let mut found = self.source(&input.copy_source, condition).await?;
        let is_replaced = input.metadata_directive.is_some_and(|how| how.as_str() == MetadataDirective::REPLACE);
        let is_itself = matches!(&input.copy_source, CopySource::Bucket { bucket, key, .. }
            if **bucket == *input.bucket && **key == *input.key);
        if is_itself && !is_replaced {
            return Err(s3_error!(InvalidRequest, "a copy of an object to itself must replace its metadata"));
        }
        let headers = if is_replaced {
            ObjectHeaders {
                metadata: input.metadata,
                cache_control: input.cache_control,
                content_disposition: input.content_disposition,
                content_encoding: input.content_encoding,
                content_language: input.content_language,
                content_type: input.content_type,
                expires: input.expires,
                website_redirect_location: input.website_redirect_location,
            }
        } else {
            std::mem::take(&mut found.attributes.headers)
        };
        let algorithm = input.checksum_algorithm.map(|algorithm| algorithm.as_str().to_owned());
        let algorithm = algorithm.or_else(|| found.attributes.checksums.algorithm().map(str::to_owned));
        let body = self.receive_range(found, None, ExpectedBody { algorithm, ..ExpectedBody::default() }).await?;
        let (etag, sums) = (to_hex(&body.md5), body.checksums.clone());
        let name = (input.bucket.as_str(), input.key.as_str());
        let modified = self.files.put(name, body, (etag.clone(), headers), &WriteCondition::default()).await?;
        Ok(S3Response::new(CopyObjectOutput {
            copy_object_result: Some(CopyObjectResult {
                e_tag: Some(ETag::Strong(etag)),
                last_modified: Some(modified),
                checksum_type: checksum_type(&sums),
                checksum_crc32: sums.crc32,
                checksum_crc32c: sums.crc32c,
                checksum_crc64nvme: sums.crc64nvme,
                checksum_sha1: sums.sha1,
                checksum_sha256: sums.sha256,
            }),
            ..CopyObjectOutput::default()
        }))
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = req.input;
        implemented(&[
            ("IfMatchLastModifiedTime", input.if_match_last_modified_time.is_none()),
            ("IfMatchSize", input.if_match_size.is_none()),
            ("VersionId", is_only_version(input.version_id.as_deref())),
        ])?;
        self.files.delete(&input.bucket, &input.key, input.if_match).await?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let DeleteObjectsInput { bucket, delete, .. } = req.input;
        self.files.bucket(&bucket)?;
        // A request with an unsupported condition deletes nothing, whatever its other keys are.
        for object in &delete.objects {
            implemented(&[
                ("LastModifiedTime", object.last_modified_time.is_none()),
                ("Size", object.size.is_none()),
                ("VersionId", is_only_version(object.version_id.as_deref())),
            ])?;
        }
        let (mut deleted, mut errors) = (Vec::new(), Vec::new());
        for object in delete.objects {
            // An `ETag` element has the values of an If-Match header; s3s parses `*` as a tag.
            let matching = object.e_tag.map(|etag| match etag.value() {
                "*" => ETagCondition::Any,
                _ => ETagCondition::ETag(etag),
            });
            match self.files.delete(&bucket, &object.key, matching).await {
                Ok(()) => deleted.push(DeletedObject { key: Some(object.key), ..DeletedObject::default() }),
                // s3s logs the source of an error that fails the request.
                Err(error) if *error.code() == S3ErrorCode::InternalError => return Err(error),
                Err(error) => errors.push(DeleteError {
                    code: Some(error.code().as_str().to_owned()),
                    key: Some(object.key),
                    message: error.message().map(str::to_owned),
                    version_id: object.version_id,
                }),
            }
        }
        let deleted = (delete.quiet != Some(true)).then_some(deleted);
        let errors = (!errors.is_empty()).then_some(errors);
        Ok(S3Response::new(DeleteObjectsOutput { deleted, errors, ..DeleteObjectsOutput::default() }))
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = req.input;
        storage_class(input.storage_class.as_ref())?;
        let headers = ObjectHeaders {
            metadata: input.metadata,
            cache_control: input.cache_control,
            content_disposition: input.content_disposition,
            content_encoding: input.content_encoding,
            content_language: input.content_language,
            content_type: input.content_type,
            expires: input.expires,
            website_redirect_location: input.website_redirect_location,
        };
        let upload = PendingUpload { bucket: input.bucket, key: input.key, headers };
        let id = self.files.begin(&upload)?;
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(upload.bucket),
            key: Some(upload.key),
            upload_id: Some(id),
            checksum_algorithm: input.checksum_algorithm,
            checksum_type: input.checksum_type,
            ..CreateMultipartUploadOutput::default()
        }))
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let sha256 = content_sha256(&req.headers);
        let input = req.input;
        self.files.upload(&input.upload_id, (&input.bucket, &input.key))?;
        part_number(input.part_number)?;
        let expected = ExpectedBody {
            length: input.content_length,
            md5: input.content_md5,
            sha256,
            checksums: ObjectChecksums {
                crc32: input.checksum_crc32,
                crc32c: input.checksum_crc32c,
                crc64nvme: input.checksum_crc64nvme,
                sha1: input.checksum_sha1,
                sha256: input.checksum_sha256,
            },
            algorithm: input.checksum_algorithm.map(|algorithm| algorithm.as_str().to_owned()),
        };
        let body = match input.body {
            Some(body) => self.files.receive(body, expected).await?,
            None => self.files.receive(nothing(), expected).await?,
        };
        let sums = body.checksums.clone();
        let part = self.files.put_part(&input.upload_id, input.part_number, body)?;
        Ok(S3Response::new(UploadPartOutput {
            e_tag: Some(ETag::Strong(part.etag())),
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
            ..UploadPartOutput::default()
        }))
    }

    async fn upload_part_copy(
        &self,
        req: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let input = req.input;
        self.files.upload(&input.upload_id, (&input.bucket, &input.key))?;
        part_number(input.part_number)?;
        let condition = ReadCondition {
            matching: input.copy_source_if_match,
            none_matching: input.copy_source_if_none_match,
            modified_since: input.copy_source_if_modified_since,
            unmodified_since: input.copy_source_if_unmodified_since,
        };
        let found = self.source(&input.copy_source, condition).await?;
        let range = input.copy_source_range.as_deref().map(|range| {
            Range::parse(range).map_err(|error| s3_error!(error, InvalidArgument, "malformed copy range {range:?}"))
        });
        let body = self.receive_range(found, range.transpose()?, ExpectedBody::default()).await?;
        let part = self.files.put_part(&input.upload_id, input.part_number, body)?;
        Ok(S3Response::new(UploadPartCopyOutput {
            copy_part_result: Some(CopyPartResult {
                e_tag: Some(ETag::Strong(part.etag())),
                ..CopyPartResult::default()
            }),
            ..UploadPartCopyOutput::default()
        }))
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = req.input;
        let name = (input.bucket.as_str(), input.key.as_str());
        let upload = self.files.upload(&input.upload_id, name)?;
        let named = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let there = self.files.parts(&input.upload_id)?;
        let there: Vec<StoredPart> = there.into_iter().map(|(part, _)| part).collect();
        let parts = complete(&named, &there)?;
        let etag = etag_of_parts(&parts);
        let condition = WriteCondition { matching: input.if_match, none_matching: input.if_none_match };
        let body = self.files.join(&input.upload_id, &parts)?;
        self.files.put(name, body, (etag.clone(), upload.headers), &condition).await?;
        self.files.end(&input.upload_id)?;
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", input.bucket, input.key)),
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(ETag::Strong(etag)),
            ..CompleteMultipartUploadOutput::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = req.input;
        self.files.upload(&input.upload_id, (&input.bucket, &input.key))?;
        self.files.end(&input.upload_id)?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    async fn list_parts(&self, req: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        let input = req.input;
        self.files.upload(&input.upload_id, (&input.bucket, &input.key))?;
        let max_parts = page_size(input.max_parts, "max-parts")?;
        let after = input.part_number_marker.unwrap_or_default();
        let rest = self.files.parts(&input.upload_id)?.into_iter().filter(|(part, _)| part.number > after);
        let mut parts = Vec::new();
        for (part, modified) in rest {
            parts.push(Part {
                part_number: Some(part.number),
                size: Some(length(part.size)?),
                e_tag: Some(ETag::Strong(part.etag())),
                last_modified: Some(modified),
                ..Part::default()
            });
        }
        let is_truncated = parts.len() > usize::try_from(max_parts).unwrap_or_default();
        parts.truncate(usize::try_from(max_parts).unwrap_or_default());
        Ok(S3Response::new(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            max_parts: Some(max_parts),
            part_number_marker: Some(after),
            next_part_number_marker: parts.last().filter(|_| is_truncated).and_then(|part| part.part_number),
            is_truncated: Some(is_truncated),
            parts: Some(parts),
            storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
            ..ListPartsOutput::default()
        }))
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = req.input;
        if input.delimiter.is_some() {
            return Err(s3_error!(NotImplemented, "uploads cannot be listed with a delimiter"));
        }
        let encode = key_encoder(input.encoding_type.as_ref())?;
        let max_uploads = page_size(input.max_uploads, "max-uploads")?;
        let prefix = input.prefix.unwrap_or_default();
        let after = (input.key_marker.unwrap_or_default(), input.upload_id_marker);
        // A key marker without an upload ID marker skips all uploads of that key.
        let follows = |key: &String, id: &String| match &after.1 {
            Some(marker) => (key, id) > (&after.0, marker),
            None => *key > after.0,
        };
        let all = self.files.uploads(&input.bucket)?.into_iter();
        let mut rest = all.filter(|(upload, id, _)| upload.key.starts_with(&prefix) && follows(&upload.key, id));
        let page: Vec<_> = rest.by_ref().take(usize::try_from(max_uploads).unwrap_or_default()).collect();
        let is_truncated = rest.next().is_some();
        let last = page.last().filter(|_| is_truncated).map(|(upload, id, _)| (upload.key.clone(), id.clone()));
        let (next_key, next_id) = last.unzip();
        let uploads = page.into_iter().map(|(upload, id, initiated)| MultipartUpload {
            key: Some(encode(upload.key)),
            upload_id: Some(id),
            initiated: Some(initiated),
            storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
            ..MultipartUpload::default()
        });
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            prefix: Some(encode(prefix)),
            key_marker: Some(encode(after.0)),
            upload_id_marker: after.1,
            next_key_marker: next_key.map(encode),
            next_upload_id_marker: next_id,
            max_uploads: Some(max_uploads),
            is_truncated: Some(is_truncated),
            uploads: Some(uploads.collect()),
            encoding_type: input.encoding_type,
            ..ListMultipartUploadsOutput::default()
        }))
    }
}

/// Returns the stored parts that a request completes an upload with.
fn complete(named: &[CompletedPart], there: &[StoredPart]) -> S3Result<Vec<StoredPart>> {
    if named.is_empty() {
        return Err(s3_error!(MalformedXML, "an upload needs at least one part"));
    }
    let numbers: Vec<i32> = named.iter().map(|part| part.part_number.unwrap_or_default()).collect();
    if let Some((before, number)) = numbers.iter().zip(numbers.iter().skip(1)).find(|(before, number)| before >= number)
    {
        return Err(s3_error!(InvalidPartOrder, "part {number} is listed after part {before}"));
    }
    let mut parts = Vec::with_capacity(named.len());
    for (at, (named_part, number)) in named.iter().zip(numbers).enumerate() {
        let part = there.iter().find(|part| part.number == number);
        let part = part.filter(|part| named_part.e_tag.as_ref().is_none_or(|etag| *etag.value() == part.etag()));
        let part = part.ok_or_else(|| s3_error!(InvalidPart, "part {number} was not uploaded, or has another ETag"))?;
        if at + 1 < named.len() && part.size < PART_BYTES {
            return Err(s3_error!(EntityTooSmall, "part {number} has fewer than {PART_BYTES} bytes"));
        }
        parts.push(part.clone());
    }
    Ok(parts)
}

/// Fails with the name of the first request member that is set and not implemented.
fn implemented(members: &[(&str, bool)]) -> S3Result<()> {
    match members.iter().find(|(_, is_implemented)| !is_implemented) {
        Some((name, _)) => {
            Err(s3_error!(NotImplemented, "{name} is not implemented for deletes: expected IfMatch only"))
        }
        None => Ok(()),
    }
}

/// Returns whether the version is the one that an object of an unversioned bucket has.
fn is_only_version(version_id: Option<&str>) -> bool {
    version_id.is_none_or(|version_id| version_id == "null")
}

/// Returns the function that encodes keys in a listing.
fn key_encoder(encoding: Option<&EncodingType>) -> S3Result<fn(String) -> String> {
    match encoding.map(EncodingType::as_str) {
        None => Ok(|key| key),
        Some(EncodingType::URL) => Ok(|key| url_encoded(&key)),
        Some(other) => Err(s3_error!(InvalidArgument, "unknown encoding-type {other:?}: expected url")),
    }
}

fn encoded_keys(mut objects: Vec<Object>, encode: fn(String) -> String) -> Vec<Object> {
    for object in &mut objects {
        object.key = object.key.take().map(encode);
    }
    objects
}

fn prefixes(prefixes: Vec<String>, encode: fn(String) -> String) -> Vec<CommonPrefix> {
    prefixes.into_iter().map(|prefix| CommonPrefix { prefix: Some(encode(prefix)) }).collect()
}

/// Decodes a continuation token to the key or common prefix after which the listing continues.
fn decode_continuation_token(token: &str) -> S3Result<String> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok();
    let key = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    key.ok_or_else(|| s3_error!(InvalidArgument, "the continuation token is not from a list of this bucket"))
}

fn page_size(requested: Option<i32>, name: &str) -> S3Result<i32> {
    match requested.unwrap_or(PAGE) {
        negative @ ..0 => Err(s3_error!(InvalidArgument, "{name} is {negative}: expected 0–2147483647")),
        requested => Ok(requested.min(PAGE)),
    }
}

fn part_number(number: i32) -> S3Result<()> {
    if (1..=MAX_PARTS).contains(&number) {
        return Ok(());
    }
    Err(s3_error!(InvalidArgument, "part number is {number}: expected 1–{MAX_PARTS}"))
}

fn storage_class(class: Option<&StorageClass>) -> S3Result<()> {
    match class.map(StorageClass::as_str) {
        None | Some(StorageClass::STANDARD | StorageClass::REDUCED_REDUNDANCY) => Ok(()),
        Some(other) => Err(s3_error!(InvalidStorageClass, "unsupported storage class {other:?}: expected STANDARD")),
    }
}

fn checksum_type(sums: &ObjectChecksums) -> Option<ChecksumType> {
    (!sums.is_empty()).then(|| ChecksumType::from_static(ChecksumType::FULL_OBJECT))
}

fn content_sha256(headers: &HeaderMap) -> Option<String> {
    headers.get(CONTENT_SHA256).and_then(|digest| digest.to_str().ok()).map(str::to_owned)
}

fn length(size: u64) -> S3Result<i64> {
    i64::try_from(size).map_err(S3Error::internal_error)
}

/// Returns the start and the length of a read.
fn bounds(range: Option<Range>, size: u64) -> S3Result<(u64, u64)> {
    let bounds = range.map_or(Ok(0..size), |range| range.check(size))?;
    if range.is_some() && bounds.is_empty() {
        return Err(s3_error!(InvalidRange, "the object has no bytes"));
    }
    Ok((bounds.start, bounds.end - bounds.start))
}

/// Adds the `ETag` of the existing object to an error.
fn tagged(mut error: S3Error, found: &StoredObject) -> S3Error {
    let mut headers = HeaderMap::new();
    if let Ok(etag) = ETag::Strong(found.attributes.etag.clone()).to_http_header() {
        headers.insert(http::header::ETAG, etag);
    }
    error.set_headers(headers);
    error
}

/// Returns an empty body.
fn nothing() -> impl Stream<Item = std::io::Result<Bytes>> + Unpin {
    stream::empty()
}

/// Reads bytes of a file as a stream.
async fn read(
    file: std::fs::File,
    first: u64,
    size: u64,
) -> S3Result<impl Stream<Item = std::io::Result<Bytes>> + Send + Sync + 'static> {
    let mut file = tokio::fs::File::from_std(file);
    file.seek(std::io::SeekFrom::Start(first)).await.map_err(S3Error::internal_error)?;
    Ok(stream::try_unfold((file, size), |(mut file, left)| async move {
        let mut bytes = BytesMut::with_capacity(usize::try_from(left).unwrap_or(READ_BYTES).min(READ_BYTES));
        if left == 0 || (&mut file).take(left).read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
        let left = left - bytes.len() as u64;
        Ok(Some((bytes.freeze(), (file, left))))
    }))
}
