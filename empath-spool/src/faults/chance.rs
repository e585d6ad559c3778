//! Which of several things happen.

use fastrand::Rng;

/// All, none, all but one and one alone find other mistakes than each with even chance.
pub(super) struct Chance {
    kind: Kind,
    so_far: usize,
}

enum Kind {
    All,
    None,
    Each,
    First(usize),
    AllBut(usize),
    Only(usize),
}

impl Chance {
    pub(super) fn new(rng: &mut Rng, things: usize) -> Self {
        let one = rng.usize(..things.max(1));
        let kind = match rng.u8(..8) {
            0 => Kind::All,
            1 => Kind::None,
            2 | 3 => Kind::First(one),
            4 => Kind::AllBut(one),
            5 => Kind::Only(one),
            _ => Kind::Each,
        };
        Self { kind, so_far: 0 }
    }

    /// Whether the next thing happens.
    pub(super) fn strikes(&mut self, rng: &mut Rng) -> bool {
        let at = self.so_far;
        self.so_far += 1;
        match self.kind {
            Kind::All => true,
            Kind::None => false,
            Kind::Each => rng.bool(),
            Kind::First(count) => at < count,
            Kind::AllBut(one) => at != one,
            Kind::Only(one) => at == one,
        }
    }
}
