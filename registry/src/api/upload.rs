//! Blob uploads: in one request, in chunks, as a stream, or by mounting (end-4 to end-6, end-11, end-13,
//! end-14).

use std::sync::Arc;

use http::StatusCode;
use http::header::CONTENT_RANGE;

use super::body::BodyStream;
use super::error::{ApiError, UploadProgress};
use super::response::{self, ApiResponse};
use super::{Api, ApiRequest};
use crate::oci::{Algorithm, Digest, Name, RangeError, UploadRange};
use crate::store::{Store, StoreError, Upload, UploadId};
use service::log::causes;

impl<S: Store> Api<S> {
    /// end-4a, end-4b, end-4c and end-11: mounts a blob, stores one from the request's body, or opens a
    /// session.
    pub(super) async fn upload_start(
        &self,
        request: &ApiRequest<'_>,
    ) -> Result<ApiResponse<S::Reader>, ApiError> {
        let name = request.name()?;
        let mut algorithm = match request.query.get("digest-algorithm") {
            Some(algorithm) => Algorithm::parse(&algorithm)?,
            None => Algorithm::default(),
        };
        if let Some(mount) = request.query.get("mount").filter(|mount| !mount.is_empty()) {
            // After a failed mount the client uploads the blob, so the session hashes with the algorithm of
            // the digest that it mounted by.
            if let Ok(digest) = Digest::parse(&mount) {
                if self.mount(request, &name, &digest).await {
                    return Ok(response::created(&blob(&name, &digest), &digest));
                }
                algorithm = digest.algorithm();
            }
        } else if let Some(digest) = request.query.get("digest") {
            let digest = Digest::parse(&digest)?;
            return self.upload_whole(request, &name, &digest).await;
        }
        let upload = self.store.upload_create(&name, algorithm).await?;
        Ok(session(StatusCode::ACCEPTED, &progress(&name, &upload)))
    }

    /// end-11: mounts a blob of another repository. Returns whether that succeeded. A failed mount does not
    /// fail the push, because it only saves an upload: clients set `from` to the repository that they pulled
    /// from, which may be another registry's and have any name.
    async fn mount(&self, request: &ApiRequest<'_>, name: &Name, digest: &Digest) -> bool {
        let from = request.query.get("from").filter(|from| !from.is_empty());
        let Ok(from) = from.map(|from| Name::parse(&from)).transpose() else {
            return false;
        };
        match self.store.blob_mount(name, from.as_ref(), digest).await {
            Ok(()) => true,
            // Not logged: clients try to mount blobs on a guess, and upload them after a failure.
            Err(StoreError::BlobUnknown | StoreError::RepositoryUnknown) => false,
            Err(error) => {
                tracing::warn!(error = causes(&error), "blob mount failed");
                false
            }
        }
    }

    /// end-13: the progress of a session.
    pub(super) async fn upload_get(
        &self,
        request: &ApiRequest<'_>,
    ) -> Result<ApiResponse<S::Reader>, ApiError> {
        let (name, id) = named_session(request)?;
        let upload = self.store.upload_stat(&name, &id).await?;
        Ok(session(StatusCode::NO_CONTENT, &progress(&name, &upload)))
    }

    /// end-5: appends a chunk, or a stream of unknown length.
    pub(super) async fn upload_patch(
        &self,
        request: &ApiRequest<'_>,
    ) -> Result<ApiResponse<S::Reader>, ApiError> {
        let (name, id) = named_session(request)?;
        let upload = self.append(request, &name, &id).await?;
        Ok(session(StatusCode::ACCEPTED, &progress(&name, &upload)))
    }

    /// end-6: appends the last chunk, if any, and commits the session as a blob.
    pub(super) async fn upload_put(
        &self,
        request: &ApiRequest<'_>,
    ) -> Result<ApiResponse<S::Reader>, ApiError> {
        let (name, id) = named_session(request)?;
        let digest = request.query.get("digest").ok_or(ApiError::DigestMissing)?;
        // Parsed before the body is appended: a malformed digest must leave the session as it is.
        let digest = Digest::parse(&digest)?;
        if !request.body.is_empty() || request.headers.contains_key(CONTENT_RANGE) {
            self.append(request, &name, &id).await?;
        }
        match self.store.upload_commit(&name, &id, &digest).await {
            Ok(()) => Ok(response::created(&blob(&name, &digest), &digest)),
            // Another request still appends: the client gets the session's end, and retries.
            Err(StoreError::UploadBusy) => Err(self.out_of_order(&name, &id).await),
            Err(error) => Err(error.into()),
        }
    }

    /// end-14: cancels a session.
    pub(super) async fn upload_delete(
        &self,
        request: &ApiRequest<'_>,
    ) -> Result<ApiResponse<S::Reader>, ApiError> {
        let (name, id) = named_session(request)?;
        self.store.upload_cancel(&name, &id).await?;
        Ok(response::empty(StatusCode::NO_CONTENT))
    }

    /// end-4b: stores a blob in one request, through a session whose identifier no client learns. It runs in
    /// a task of its own: if the client closes the connection, hyper drops this future, but the task still
    /// ends the session.
    async fn upload_whole(
        &self,
        request: &ApiRequest<'_>,
        name: &Name,
        digest: &Digest,
    ) -> Result<ApiResponse<S::Reader>, ApiError> {
        let body = (!request.body.is_empty()).then(|| request.body.stream(None));
        let (store, repository) = (Arc::clone(&self.store), name.clone());
        let stored = store_whole(store, repository, digest.clone(), body);
        match tokio::spawn(stored).await {
            Ok(Ok(())) => Ok(response::created(&blob(name, digest), digest)),
            Ok(Err(error)) => Err(request.body_or_store(error)),
            Err(ended) => match ended.try_into_panic() {
                // Handled where all panics of handlers are.
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(StoreError::Interrupted.into()),
            },
        }
    }

    /// Appends the request's body. Its `Content-Range`, if any, must begin where the session ends.
    async fn append(
        &self,
        request: &ApiRequest<'_>,
        name: &Name,
        id: &UploadId,
    ) -> Result<Upload, ApiError> {
        let range = chunk_range(request)?;
        let upload = self.store.upload_stat(name, id).await?;
        // Before the body is read: a chunk out of order must cost neither disk nor time.
        if range.is_some_and(|range| range.start() != upload.offset) {
            return Err(ApiError::OutOfOrder(progress(name, &upload)));
        }
        let body = request.body.stream(range.map(UploadRange::length));
        match self
            .store
            .upload_append(name, id, upload.offset, body)
            .await
        {
            Ok(upload) => Ok(upload),
            // Another request appended between the two steps. The client gets the session's new end.
            Err(StoreError::UploadOffset { .. } | StoreError::UploadBusy) => {
                Err(self.out_of_order(name, id).await)
            }
            Err(error) => Err(request.body_or_store(error)),
        }
    }

    async fn out_of_order(&self, name: &Name, id: &UploadId) -> ApiError {
        match self.store.upload_stat(name, id).await {
            Ok(upload) => ApiError::OutOfOrder(progress(name, &upload)),
            Err(error) => error.into(),
        }
    }
}

impl ApiRequest<'_> {
    /// The body's own error, if the body failed: the store knows only that it did.
    fn body_or_store(&self, error: StoreError) -> ApiError {
        match (error, self.body.failure()) {
            (StoreError::Body(_), Some(failure)) => failure.into(),
            (error, _) => error.into(),
        }
    }
}

/// Stores a blob through a session, and ends the session in any case: no client could resume it.
async fn store_whole<S: Store>(
    store: Arc<S>,
    name: Name,
    digest: Digest,
    body: Option<BodyStream>,
) -> Result<(), StoreError> {
    let upload = store.upload_create(&name, digest.algorithm()).await?;
    let stored = async {
        if let Some(body) = body {
            store.upload_append(&name, &upload.id, 0, body).await?;
        }
        store.upload_commit(&name, &upload.id, &digest).await
    };
    let Err(error) = stored.await else {
        return Ok(());
    };
    match store.upload_cancel(&name, &upload.id).await {
        Ok(()) | Err(StoreError::UploadUnknown) => {}
        // The session expires later.
        Err(error) => tracing::warn!(error = causes(&error), "upload session not cancelled"),
    }
    Err(error)
}

/// The repository and the session in the path.
fn named_session(request: &ApiRequest<'_>) -> Result<(Name, UploadId), ApiError> {
    let name = request.name()?;
    let id = UploadId::parse(request.route.tail).ok_or(ApiError::UploadId)?;
    Ok((name, id))
}

/// The chunk's `Content-Range`, if any. Its length must be the body's declared length.
fn chunk_range(request: &ApiRequest<'_>) -> Result<Option<UploadRange>, ApiError> {
    let Some(range) = request.headers.get(CONTENT_RANGE) else {
        return Ok(None);
    };
    let range = range
        .to_str()
        .map_err(|_| RangeError)
        .and_then(UploadRange::parse)
        .map_err(ApiError::ContentRange)?;
    match request.body.declared() {
        Some(length) if length != range.length() => Err(ApiError::RangeLength {
            range: range.length(),
            length,
        }),
        _ => Ok(Some(range)),
    }
}

fn progress(name: &Name, upload: &Upload) -> UploadProgress {
    UploadProgress {
        // Relative, because behind a proxy the registry does not know its public address.
        location: format!("/v2/{name}/blobs/uploads/{}", upload.id),
        id: upload.id.to_string(),
        offset: upload.offset,
    }
}

fn session<R>(status: StatusCode, progress: &UploadProgress) -> ApiResponse<R> {
    let mut response = response::empty(status);
    progress.headers(response.headers_mut());
    response
}

fn blob(name: &Name, digest: &Digest) -> String {
    format!("/v2/{name}/blobs/{digest}")
}
