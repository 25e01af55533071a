//! One try of an exchange: which endpoint, how long, how it ended. Kept only of exchanges that were tried more than once or
//! are traced.

use crate::exchange::Failure;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub endpoint: usize,
    /// Nanoseconds of the clock.
    pub began: u64,
    pub ended: u64,
    /// 0: no answer came; without a failure the other of two tries was faster.
    pub status: u16,
    pub failure: Option<Failure>,
    /// On a connection that served before.
    pub reused: bool,
    /// The span of this try, if there is one.
    pub span: [u8; 8],
}

impl Attempt {
    /// How it ended, in a word.
    pub fn outcome(&self) -> String {
        match (self.failure, self.status) {
            (Some(failure), _) => failure.name().to_owned(),
            (None, 0) => "given_up".to_owned(),
            (None, status) => status.to_string(),
        }
    }
}
