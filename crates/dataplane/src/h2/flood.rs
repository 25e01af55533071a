//! What the other side may cost without asking for anything (RFC 9113 §10.5): frames that carry nothing, answers nobody
//! reads, streams begun only to be ended. Each has its account; useful traffic pays back.

/// Bytes of frames that carry nothing, beyond what useful ones have paid for.
const OVERHEAD: u32 = 1 << 20;
/// What a frame with payload and what a head pays back.
const DATA_PAYS: u32 = 64;
const HEAD_PAYS: u32 = 256;
/// What time pays back: of each read, so that a ping now and then is free for ever.
const READ_PAYS: u32 = 64;
/// Bytes of answers to PING, SETTINGS and errors that the other side has not taken.
const ANSWERS: u32 = 64 << 10;
/// Streams a client may end, or make us end, beyond those that were answered (CVE-2023-44487, CVE-2025-8671).
const RESETS: u32 = 200;

#[derive(Debug, Default)]
pub(super) struct Patience {
    overhead: u32,
    answers: u32,
    resets: u32,
}

impl Patience {
    /// Whether the other side has used up what it may cost.
    pub(super) fn is_over(&self) -> bool {
        self.overhead > OVERHEAD || self.answers > ANSWERS || self.resets > RESETS
    }

    /// A frame, or a part of one, of this many bytes that carried nothing.
    pub(super) fn useless(&mut self, bytes: usize) {
        self.overhead = self.overhead.saturating_add(bytes as u32);
    }

    /// Payload has passed, in either direction.
    pub(super) fn data(&mut self) {
        self.overhead = self.overhead.saturating_sub(DATA_PAYS);
    }

    pub(super) fn head(&mut self) {
        self.overhead = self.overhead.saturating_sub(HEAD_PAYS);
    }

    /// The owner has read from the connection once.
    pub(super) fn read(&mut self) {
        self.overhead = self.overhead.saturating_sub(READ_PAYS);
    }

    /// We had to answer something that is no request.
    pub(super) fn answered(&mut self, bytes: usize) {
        self.answers = self.answers.saturating_add(bytes as u32);
    }

    /// The kernel has taken everything.
    pub(super) fn drained(&mut self) {
        self.answers = 0;
    }

    /// A stream has ended before its time, because of what the other side did.
    pub(super) fn reset(&mut self) {
        self.resets += 1;
    }

    pub(super) fn completed(&mut self) {
        self.resets = self.resets.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Patience that one more useless byte would end.
    fn worn() -> Patience {
        let mut patience = Patience::default();
        patience.useless(OVERHEAD as usize);
        assert!(!patience.is_over());
        patience
    }

    #[test]
    fn what_carries_nothing_is_paid_for_by_what_does() {
        type Pay = fn(&mut Patience);
        let pays: [Pay; 3] = [Patience::data, Patience::head, Patience::read];
        for (pay, bytes) in pays.into_iter().zip([DATA_PAYS, HEAD_PAYS, READ_PAYS]) {
            let mut patience = worn();
            pay(&mut patience);
            patience.useless(bytes as usize);
            assert!(!patience.is_over());
            patience.useless(1);
            assert!(patience.is_over());
        }
    }

    #[test]
    fn answers_count_until_they_are_taken_and_streams_until_others_are_answered() {
        let mut patience = Patience::default();
        patience.answered(ANSWERS as usize);
        patience.drained();
        patience.answered(ANSWERS as usize);
        assert!(!patience.is_over());
        patience.answered(1);
        assert!(patience.is_over());
        let mut patience = Patience::default();
        (0..RESETS).for_each(|_| patience.reset());
        patience.completed();
        patience.reset();
        assert!(!patience.is_over());
        patience.reset();
        assert!(patience.is_over());
    }
}
