//! Operations on a store that is recorded, and the notes of when they begin and end.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use parking_lot::Mutex;
use tokio::task::spawn_blocking;

use super::promises::{Item, Operation, Promises};
use super::recording::{Event, Recorder};
use crate::oci::{Algorithm, Digest, Name, Tag};
use crate::store::fs::disk::observer::{Observation, Observer, observe};
use crate::store::fs::{Durability, FsStore, GcReport, GcSettings};
use crate::store::maintenance::{Pace, Run};
use crate::store::suite::manifest;
use crate::store::{NewManifest, Result, Store};

/// A store under a recorder. Clones are the same store, for tasks that work at the same time.
#[derive(Clone)]
pub(super) struct History {
    store: FsStore,
    recorder: Arc<Recorder>,
    promises: Arc<Mutex<Promises>>,
    _observation: Arc<Observation>,
}

impl History {
    /// Opens a new store in a directory `data` below an empty one.
    pub(super) fn begin(root: &Path, durability: Durability) -> Self {
        let recorder = Recorder::new(root);
        let observation = observe(root, Arc::clone(&recorder) as Arc<dyn Observer>);
        let store = FsStore::open(&root.join("data"), durability, Arc::new(()));
        Self {
            store: store.unwrap(),
            recorder,
            promises: Arc::default(),
            _observation: Arc::new(observation),
        }
    }

    /// All that happened, and what was promised.
    pub(super) fn end(self) -> (Vec<Event>, Promises) {
        let events = self.recorder.events();
        (events, std::mem::take(&mut *self.promises.lock()))
    }

    /// Notes the begin and the end of an operation.
    async fn operation<T>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let number = {
            let mut promises = self.promises.lock();
            promises.operations.push(operation);
            promises.operations.len() - 1
        };
        self.recorder.note(Event::Begun(number));
        let done = work.await;
        self.recorder.note(Event::Ended(number, done.is_ok()));
        done
    }

    fn know(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, bytes);
        let mut promises = self.promises.lock();
        promises.content.insert(digest.clone(), bytes.to_vec());
        digest
    }

    /// Opens a session and appends chunks to it. Returns its number.
    pub(super) async fn upload(&self, name: &Name, chunks: &[&[u8]]) -> Result<usize> {
        let upload = self.store.upload_create(name, Algorithm::Sha256).await?;
        let number = {
            let mut promises = self.promises.lock();
            promises.uploads.push((name.clone(), upload.id.clone()));
            promises.uploads.len() - 1
        };
        self.recorder.note(Event::Uploaded(number, 0));
        let mut offset = 0;
        for chunk in chunks {
            let body = stream::iter([Ok(Bytes::copy_from_slice(chunk))]);
            let appended = self.store.upload_append(name, &upload.id, offset, body);
            offset = appended.await?.offset;
            self.recorder.note(Event::Uploaded(number, offset));
        }
        Ok(number)
    }

    /// Commits a session as these bytes.
    pub(super) async fn commit(&self, number: usize, bytes: &[u8]) -> Result<Digest> {
        let digest = self.know(bytes);
        let (name, id) = self.promises.lock().uploads[number].clone();
        let effects = vec![(
            Item::Blob(name.clone(), digest.clone()),
            Some(digest.clone()),
        )];
        let work = self.store.upload_commit(&name, &id, &digest);
        self.operation(Operation::of(effects, vec![number]), work)
            .await?;
        Ok(digest)
    }

    pub(super) async fn cancel(&self, number: usize) -> Result<()> {
        let (name, id) = self.promises.lock().uploads[number].clone();
        let work = self.store.upload_cancel(&name, &id);
        self.operation(Operation::of(vec![], vec![number]), work)
            .await
    }

    /// Ends all sessions that no request uses.
    pub(super) async fn expire(&self) -> Result<()> {
        let all = (0..self.promises.lock().uploads.len()).collect();
        let work = async {
            self.store.expire_uploads(Duration::ZERO).await?;
            Ok(())
        };
        self.operation(Operation::of(vec![], all), work).await
    }

    pub(super) async fn push(&self, name: &Name, chunks: &[&[u8]]) -> Result<Digest> {
        let number = self.upload(name, chunks).await?;
        self.commit(number, &chunks.concat()).await
    }

    pub(super) async fn mount(
        &self,
        name: &Name,
        from: Option<&Name>,
        blob: &Digest,
    ) -> Result<()> {
        let item = Item::Blob(name.clone(), blob.clone());
        let work = self.store.blob_mount(name, from, blob);
        self.operation(Operation::makes(item, Some(blob)), work)
            .await
    }

    pub(super) async fn delete_blob(&self, name: &Name, blob: &Digest) -> Result<()> {
        let item = Item::Blob(name.clone(), blob.clone());
        let work = self.store.blob_delete(name, blob);
        self.operation(Operation::makes(item, None), work).await
    }

    /// Writes the manifest of a text with these blobs, children, subject and tags.
    pub(super) async fn write(
        &self,
        name: &Name,
        new: NewManifest,
        tags: &[&Tag],
    ) -> Result<Digest> {
        let digest = self.know(&new.bytes);
        if let Some((subject, _)) = &new.subject {
            let mut promises = self.promises.lock();
            promises.subjects.insert(digest.clone(), subject.clone());
        }
        if !new.blobs.is_empty() {
            let mut promises = self.promises.lock();
            promises.blobs.insert(digest.clone(), new.blobs.clone());
        }
        let value = Some(digest.clone());
        let item = Item::Manifest(name.clone(), digest.clone());
        let mut effects = vec![(item, value.clone())];
        let tags: Vec<Tag> = tags.iter().map(|tag| (*tag).clone()).collect();
        let items = tags.iter().map(|tag| Item::Tag(name.clone(), tag.clone()));
        effects.extend(items.map(|item| (item, value.clone())));
        let work = self.store.manifest_write(name, new, &tags, None);
        self.operation(Operation::of(effects, vec![]), work).await?;
        Ok(digest)
    }

    pub(super) async fn delete_manifest(&self, name: &Name, manifest: &Digest) -> Result<()> {
        let item = Item::Manifest(name.clone(), manifest.clone());
        let work = self.store.manifest_delete(name, manifest);
        self.operation(Operation::makes(item, None), work).await?;
        Ok(())
    }

    /// Nobody deletes what an index mentions: it is not to be there without it.
    pub(super) fn keeps_children(&self, index: &Digest, children: &[&Digest]) {
        let children = children.iter().copied().cloned().collect();
        self.promises
            .lock()
            .children
            .insert(index.clone(), children);
    }

    /// Collects garbage, which may take these blobs.
    pub(super) async fn collect(&self, takes: Vec<Item>) -> Result<()> {
        self.collect_with(None, takes).await
    }

    /// Collects garbage and untagged manifests, which may take these items.
    pub(super) async fn collect_untagged(&self, takes: Vec<Item>) -> Result<()> {
        self.collect_with(Some(Duration::ZERO), takes).await
    }

    async fn collect_with(&self, untagged: Option<Duration>, takes: Vec<Item>) -> Result<()> {
        let settings = GcSettings {
            grace: Duration::ZERO,
            untagged,
            dry_run: false,
        };
        let store = self.store.clone();
        let work = async move {
            let collect = move || {
                let (run, mut report) = (Run::new(Pace::Full), GcReport::default());
                store.collect(settings, &run, &mut report).unwrap();
            };
            spawn_blocking(collect).await.unwrap();
            Ok(())
        };
        let operation = Operation {
            takes,
            ..Operation::default()
        };
        self.operation(operation, work).await
    }

    pub(super) async fn tag(&self, name: &Name, tag: &Tag, manifest: &Digest) -> Result<()> {
        let item = Item::Tag(name.clone(), tag.clone());
        let work = self.store.tag_write(name, tag, manifest);
        self.operation(Operation::makes(item, Some(manifest)), work)
            .await?;
        Ok(())
    }

    pub(super) async fn delete_tag(&self, name: &Name, tag: &Tag) -> Result<()> {
        let item = Item::Tag(name.clone(), tag.clone());
        let work = self.store.tag_delete(name, tag, None);
        self.operation(Operation::makes(item, None), work).await
    }
}

impl Operation {
    fn of(effects: Vec<(Item, Option<Digest>)>, ends: Vec<usize>) -> Self {
        Self {
            effects,
            ends,
            ..Self::default()
        }
    }

    fn makes(item: Item, value: Option<&Digest>) -> Self {
        Self::of(vec![(item, value.cloned())], vec![])
    }
}

/// A manifest with these blobs and children.
pub(super) fn with(text: &str, blobs: &[&Digest], children: &[&Digest]) -> NewManifest {
    NewManifest {
        blobs: blobs.iter().map(|&digest| digest.clone()).collect(),
        children: children.iter().map(|&digest| digest.clone()).collect(),
        ..manifest(text)
    }
}

/// A manifest that refers to a subject.
pub(super) fn referring(text: &str, subject: &Digest) -> NewManifest {
    let new = manifest(text);
    let size = new.bytes.len() as u64;
    let descriptor = crate::oci::Descriptor::new(new.media_type.clone(), new.digest.clone(), size);
    NewManifest {
        subject: Some((subject.clone(), descriptor)),
        ..new
    }
}
