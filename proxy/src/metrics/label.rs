//! The labels that only the proxy's families have. Closed sets, all of them.

use service::metrics::labels;

labels! {
    /// What was done with a blob.
    pub enum BlobOperation {
        Pull = "pull",
        Head = "head",
        Push = "push",
        Mount = "mount",
        Delete = "delete",
    }

    /// What was done with a manifest.
    pub enum ManifestOperation {
        /// A GET.
        Pull = "pull",
        /// A HEAD.
        Resolve = "resolve",
        Push = "push",
        Delete = "delete",
    }

    /// How the wish for a cross-repository mount ended.
    pub enum MountResult {
        Mounted = "mounted",
        /// An upload session was opened instead.
        Fallback = "fallback",
        Error = "error",
    }

    /// The side that cut a transfer.
    pub enum Side {
        Client = "client",
        Upstream = "upstream",
    }

    /// Where a body goes.
    pub enum Transfer {
        Upload = "upload",
        Download = "download",
    }

    /// What a client is about.
    pub enum Purpose {
        Pull = "pull",
        Push = "push",
        Other = "other",
    }

    /// The scheme of a request's credentials.
    pub enum Scheme {
        Basic = "basic",
        Bearer = "bearer",
        None = "none",
        Other = "other",
    }

    /// What the upstream made of a request's credentials, or of their absence.
    pub enum AuthResult {
        /// 401 to a request without credentials.
        Challenge = "challenge",
        Ok = "ok",
        Unauthorized = "unauthorized",
        Forbidden = "forbidden",
    }
}
