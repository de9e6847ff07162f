//! The beginning of an upload session.

use std::sync::Arc;

use super::quota;
use super::session::UploadSession;
use crate::oci::{Algorithm, Name};
use crate::store::fs::data_directory::DataDirectory;
use crate::store::{Result, Upload};

/// Opens an upload session.
pub(in crate::store::fs) fn create(
    data: &DataDirectory,
    name: &Name,
    algorithm: Algorithm,
) -> Result<Upload> {
    let reserved = &data.sessions.reserved;
    let session = Arc::new(UploadSession::new(name, algorithm, reserved));
    // Entered before it has files, so that there are never more directories than slots. No client
    // knows its identifier yet.
    let _in_use = quota::admit(data, &session)?;
    if let Err(error) = session.make_files(&data.layout) {
        data.sessions.remove(&session.id);
        return Err(error);
    }
    Ok(session.upload())
}
