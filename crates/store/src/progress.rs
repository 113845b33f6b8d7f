//! What a long piece of work tells its caller while it runs.

/// What is being done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// The package lists are fetched anew, because they hold no kernel or are out of date.
    Update,
    /// The packages of the wanted kernel are looked up.
    Resolve,
    /// Another process is fetching the same kernel.
    Wait,
    /// A package is downloaded. `done` and `total` are bytes of all the packages still to download.
    Download {
        /// The package's name.
        package: String,
    },
    /// The packages' checksums are compared. `done` and `total` are bytes.
    Verify,
    /// Packages and source are unpacked. `done` and `total` are bytes of the compressed files.
    Unpack,
    /// The kernel is in the cache.
    Done,
}

impl Stage {
    /// One word for a progress line.
    pub fn name(&self) -> &'static str {
        match self {
            Stage::Update => "update",
            Stage::Resolve => "resolve",
            Stage::Wait => "wait",
            Stage::Download { .. } => "download",
            Stage::Verify => "verify",
            Stage::Unpack => "unpack",
            Stage::Done => "done",
        }
    }
}

/// How far the work has come. Sent at the start of a stage and a few times a second after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// How much of it is done, in bytes.
    pub done: u64,
    /// How much there is to do, in bytes, where that is known.
    pub total: Option<u64>,
}

impl Progress {
    /// The start of a stage whose extent is not known.
    pub fn begin(stage: Stage) -> Self {
        Self { stage, done: 0, total: None }
    }

    /// A point within a stage. More than all is never done: sizes of files in motion are not exact.
    pub fn at(stage: Stage, done: u64, total: u64) -> Self {
        Self { stage, done: done.min(total), total: Some(total) }
    }
}
