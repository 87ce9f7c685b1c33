//! Which block a chain is wanted for: found among the blocks that a check judges.

use pageshim_wire::check::{Class, Wanted};

use super::{Live, Sink};

/// A block that fits, and what the check says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aim {
    /// What was asked for.
    pub wanted: Wanted,
    /// The block's class.
    pub class: Class,
    /// The block. Of a site that is reachable it stands for any of its blocks.
    pub block: Live,
    /// The lost block that leads to it, when it is indirect.
    pub leader: Option<Live>,
}

/// Passes on what it hears, and remembers a block that fits: of several one of the class
/// that is held best, because the question is who holds it.
#[derive(Debug)]
pub struct Watch<'s, S> {
    inner: &'s mut S,
    wanted: Wanted,
    aim: Option<Aim>,
}

impl<'s, S: Sink> Watch<'s, S> {
    /// Looks out for what is wanted.
    pub const fn new(inner: &'s mut S, wanted: Wanted) -> Self {
        Self {
            inner,
            wanted,
            aim: None,
        }
    }

    /// The block, if there was one.
    pub const fn aim(&self) -> Option<Aim> {
        self.aim
    }

    fn fits(&self, class: Class, block: &Live) -> bool {
        match self.wanted {
            Wanted::Address(address) => {
                let at = address.wrapping_sub(block.address as u64);
                at == 0 || at < block.requested as u64
            }
            Wanted::Site(site, wanted) => {
                block.site == site && wanted.is_none_or(|wanted| wanted == class)
            }
        }
    }
}

impl<S: Sink> Sink for Watch<'_, S> {
    fn block(&mut self, class: Class, block: &Live) {
        self.inner.block(class, block);
        let better = self.aim.is_none_or(|aim| class > aim.class);
        if better && self.fits(class, block) {
            self.aim = Some(Aim {
                wanted: self.wanted,
                class,
                block: *block,
                leader: None,
            });
        }
    }

    fn held(&mut self, leader: &Live, block: &Live) {
        self.inner.held(leader, block);
        if let Some(aim) = &mut self.aim
            && aim.block.address == block.address
        {
            aim.leader = Some(*leader);
        }
    }
}
