//! Why a client is turned away, in a sentence it can print.

use pageshim_wire::frame::FrameError;
use pageshim_wire::layout::LayoutError;

/// Why a connection was refused or dropped.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Another version of the protocol or of the shared state.
    #[error(
        "pageshim daemon {daemon} speaks protocol {ours}, this libpageshim.so speaks {theirs}: \
         preload the library of this daemon (`pageshim lib-path`), or restart the daemon of the other version",
        daemon = env!("CARGO_PKG_VERSION"), ours = pageshim_wire::VERSION
    )]
    Version {
        /// What the client speaks.
        theirs: u32,
    },
    /// The first frame is not a hello.
    #[error(
        "the first frame was not a hello: this socket takes connections of libpageshim.so only"
    )]
    NotHello,
    /// A frame of no known shape.
    #[error(
        "a frame could not be decoded ({0:?}): the connection is closed, counting goes on in shared state"
    )]
    Frame(FrameError),
    /// No descriptor came with the hello.
    #[error("hello came without a memfd: the shared state must be passed beside it (SCM_RIGHTS)")]
    NoMemfd,
    /// Not a memfd, or one that may shrink.
    #[error("the memfd is not sealed against shrinking: F_SEAL_SHRINK must be set before hello")]
    Unsealed,
    /// The state is not sound.
    #[error(
        "the shared state is refused ({0:?}): it is shorter than its header says, or its capacities are not sound"
    )]
    Layout(LayoutError),
    /// Another user's process.
    #[error(
        "processes of user {peer} are refused: this daemon runs as user {own}; start one as that user, or as root for all"
    )]
    User {
        /// Of the client.
        peer: u32,
        /// Of the daemon.
        own: u32,
    },
    /// The token is zero, differs from the state's, or is in use by another user.
    #[error("the process token is not valid for this connection")]
    Token,
    /// Hello did not come in time.
    #[error("no complete hello within {0} s")]
    Slow(u64),
    /// The daemon holds as many connections as it may.
    #[error("the daemon already serves {0} connections, the most it may: try again later")]
    TooMany(usize),
    /// The stream ended before its first byte: somebody wanted to know whether
    /// anybody listens. No error, and not counted.
    #[error("the connection ended before its first byte")]
    Knocked,
    /// The stream ended or failed before a whole hello.
    #[error("the connection ended before a whole hello")]
    Gone,
}

/// Labels of `pageshim_decode_errors_total`, all of them.
pub const REASONS: [&str; 12] = [
    "version",
    "not_hello",
    "frame",
    "half_frame",
    "no_memfd",
    "unsealed",
    "layout",
    "user",
    "token",
    "slow",
    "too_many",
    "gone",
];

impl Refusal {
    /// The label of this reason.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Version { .. } => "version",
            Self::NotHello => "not_hello",
            Self::Frame(_) => "frame",
            Self::NoMemfd => "no_memfd",
            Self::Unsealed => "unsealed",
            Self::Layout(_) => "layout",
            Self::User { .. } => "user",
            Self::Token => "token",
            Self::Slow(_) => "slow",
            Self::TooMany(_) => "too_many",
            Self::Gone | Self::Knocked => "gone",
        }
    }
}

impl From<FrameError> for Refusal {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Version(theirs) => Self::Version {
                theirs: theirs.into(),
            },
            other => Self::Frame(other),
        }
    }
}

impl From<LayoutError> for Refusal {
    fn from(error: LayoutError) -> Self {
        match error {
            LayoutError::Version(theirs) => Self::Version { theirs },
            other => Self::Layout(other),
        }
    }
}
