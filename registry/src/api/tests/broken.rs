//! A store in trouble: what clients are told then, and what not.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Iter};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::harness::{Answer, Client};
use crate::api::{Api, Policy, Recorders};
use crate::oci::{Algorithm, ByteRange, Descriptor, Digest, Name, Reference, Tag};
use crate::store::{
    BlobRead, Listing, NewManifest, Result, Span, Store, StoreError, StoredManifest, TagChanges,
    Upload, UploadId,
};

/// Fails at everything, but for the first bytes of a blob of ten.
struct Broken(fn() -> StoreError);

impl Broken {
    fn fail<T>(&self) -> Result<T> {
        Err((self.0)())
    }
}

impl Store for Broken {
    type Reader = Iter<std::vec::IntoIter<Result<Bytes>>>;

    async fn blob_stat(&self, _: &Name, _: &Digest) -> Result<u64> {
        self.fail()
    }
    async fn blob_read(
        &self,
        _: &Name,
        _: &Digest,
        _: Option<ByteRange>,
    ) -> Result<BlobRead<Self::Reader>> {
        let begun = vec![Ok(Bytes::from_static(b"012")), self.fail()];
        Ok(BlobRead {
            size: 10,
            span: Span {
                start: 0,
                length: 10,
            },
            reader: stream::iter(begun),
        })
    }
    async fn blob_delete(&self, _: &Name, _: &Digest) -> Result<()> {
        self.fail()
    }
    async fn blob_mount(&self, _: &Name, _: Option<&Name>, _: &Digest) -> Result<()> {
        self.fail()
    }
    async fn upload_create(&self, _: &Name, _: Algorithm) -> Result<Upload> {
        self.fail()
    }
    async fn upload_stat(&self, _: &Name, _: &UploadId) -> Result<Upload> {
        self.fail()
    }
    async fn upload_append<B>(&self, _: &Name, _: &UploadId, _: u64, _: B) -> Result<Upload> {
        self.fail()
    }
    async fn upload_commit(&self, _: &Name, _: &UploadId, _: &Digest) -> Result<()> {
        self.fail()
    }
    async fn upload_cancel(&self, _: &Name, _: &UploadId) -> Result<()> {
        self.fail()
    }
    async fn manifest_read(&self, _: &Name, _: &Reference) -> Result<StoredManifest> {
        self.fail()
    }
    async fn manifest_write(&self, _: &Name, _: NewManifest, _: &[Tag]) -> Result<TagChanges> {
        self.fail()
    }
    async fn manifest_delete(&self, _: &Name, _: &Digest) -> Result<TagChanges> {
        self.fail()
    }
    async fn tag_read(&self, _: &Name, _: &Tag) -> Result<Digest> {
        self.fail()
    }
    async fn tag_write(&self, _: &Name, _: &Tag, _: &Digest) -> Result<TagChanges> {
        self.fail()
    }
    async fn tag_delete(&self, _: &Name, _: &Tag) -> Result<()> {
        self.fail()
    }
    async fn tag_list(&self, _: &Name, _: Option<&str>, _: usize) -> Result<Listing<Tag>> {
        self.fail()
    }
    async fn repository_list(&self, _: Option<&str>, _: usize) -> Result<Listing<Name>> {
        self.fail()
    }
    async fn referrers_list(&self, _: &Name, _: &Digest) -> Result<Vec<Descriptor>> {
        self.fail()
    }
}

/// A connection to an API over a store that fails so.
async fn client(failure: fn() -> StoreError) -> Client {
    let policy = Policy {
        read_only: false,
        delete: true,
        manifest_limit: 1 << 20,
        body_stall: Duration::from_mins(1),
    };
    let api = Arc::new(Api::new(Broken(failure), policy, Recorders::default()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(move |request| {
            let api = Arc::clone(&api);
            async move { Ok::<_, std::convert::Infallible>(api.handle(request).await) }
        });
        let server = hyper::server::conn::http1::Builder::new();
        let _ = server.serve_connection(TokioIo::new(stream), service).await;
    });
    Client::connect(address).await
}

fn io_error() -> StoreError {
    StoreError::io("/secret/place", io::ErrorKind::PermissionDenied.into())
}

#[tokio::test]
async fn a_store_in_trouble_is_unavailable_and_says_nothing_of_its_insides() {
    let cases: [(fn() -> StoreError, u16); 4] = [
        (io_error, 500),
        (
            || StoreError::io("/secret/place", io::ErrorKind::StorageFull.into()),
            507,
        ),
        (
            || StoreError::Corrupt {
                path: "/secret/place".into(),
                reason: "secret",
            },
            500,
        ),
        (|| StoreError::Interrupted, 503),
    ];
    for (failure, status) in cases {
        let mut client = client(failure).await;
        for (method, target) in [
            ("GET", "/v2/a/manifests/1"),
            ("GET", "/v2/a/tags/list"),
            ("GET", "/v2/_catalog"),
            ("POST", "/v2/a/blobs/uploads/"),
            ("DELETE", "/v2/a/manifests/1"),
            (
                "PATCH",
                "/v2/a/blobs/uploads/00000000000000000000000000000000",
            ),
        ] {
            let answer: Answer = client.ask(method, target, &[], b"").await;
            let answer = answer.refused(status, "UNAVAILABLE");
            assert!(!answer.text().contains("secret"), "{}", answer.text());
        }
    }
}

#[tokio::test]
async fn a_panic_ends_one_request_and_not_its_connection() {
    let mut client = client(|| panic!("on purpose")).await;
    for _ in 0..2 {
        let answer = client.ask("GET", "/v2/a/manifests/1", &[], b"").await;
        let answer = answer.refused(500, "UNAVAILABLE");
        assert!(!answer.text().contains("purpose"), "{}", answer.text());
    }
    client.ask("GET", "/v2/", &[], b"").await.expect(200);
}

#[tokio::test]
async fn a_blob_that_cannot_be_read_to_its_end_breaks_the_connection() {
    let mut client = client(io_error).await;
    let digest = Digest::of(Algorithm::Sha256, b"");
    client
        .send(format!(
            "GET /v2/a/blobs/{digest} HTTP/1.1\r\nhost: x\r\n\r\n"
        ))
        .await;
    let mut all = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut client.stream, &mut all).await;
    let all = String::from_utf8(all).unwrap();
    let body = all.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    assert!("012".starts_with(body), "{all}");
}
