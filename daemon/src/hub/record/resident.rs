//! Resident bytes of a heap over time: the last sample, the highest, the fullest.

use crate::books::report::Pages;

/// What samples of resident bytes told.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Resident {
    pub(super) last: u64,
    pub(super) peak: u64,
    /// The page account when most bytes were requested: resident bytes stay
    /// high for a while after a program has freed everything.
    pub(super) at_peak: Option<Pages>,
}

impl Resident {
    /// Takes a sample, with the account read beside it.
    pub(super) fn note(&mut self, resident: u64, account: &Pages) {
        self.last = resident;
        self.peak = self.peak.max(resident);
        let most = self.at_peak.map(|pages| pages.requested_bytes);
        if most.is_none_or(|most| account.requested_bytes > most) {
            self.at_peak = Some(Pages {
                resident_bytes: resident,
                resident_peak_bytes: self.peak,
                resident_last_bytes: resident,
                ..*account
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: the highest sample is kept, and the account of the fullest. Method: up, then down.
    #[test]
    fn the_fullest_sample_keeps_its_account() {
        let mut resident = Resident::default();
        let account = |requested_bytes| Pages {
            requested_bytes,
            ..Pages::default()
        };
        for (bytes, requested) in [(10, 1), (50, 9), (60, 2), (20, 3)] {
            resident.note(bytes, &account(requested));
        }
        let at_peak = resident.at_peak.expect("sampled");
        assert_eq!((resident.last, resident.peak), (20, 60));
        assert_eq!((at_peak.requested_bytes, at_peak.resident_bytes), (9, 50));
    }
}
