//! A bump over nodes of its parent; frees all at once.
//!
//! # Design
//! ```text
//! node  | header 32 | block | block | ...        tail |  --prev--> older node
//! ```
//! Each node is half again as large as what came before plus the request. Before
//! a new node the parent is asked to enlarge the current one by half, so that a
//! long run of small blocks costs few calls. Freeing or
//! resizing works for the last block of the current node; any other free leaves
//! its bytes until [`Arena::reset`] or drop. Dropping gives all nodes back.
//!
//! # Invariants
//! A1. `requested + retained + tails + metadata = committed`, where retained are
//!     bytes in nodes that serve nobody (alignment gaps, freed blocks).
//! A2. Nodes are only released with the arena borrowed exclusively.
//!
//! # Concurrency
//! [`Arena`] is for one thread. In [`SharedArena`] a bump is one compare-and-swap;
//! a new node is made under a lock (for the time of the parent's call).
//!
//! # Failure
//! `None` when the parent refuses; the arena stays as it was.
#![allow(unsafe_code)]

use core::mem::ManuallyDrop;
use core::ptr::{self, NonNull};

use super::bump::Stretch;
use super::layer::{
    Align, Caller, Held, Layer, Mutex, Number, Shape, Shared, Single, Threading, Usage,
};

const HEADER: usize = 32;
const NODE_ALIGN: Align = Align::MALLOC;

#[repr(C)]
#[derive(Debug)]
struct Node<N> {
    prev: usize,
    bytes: N,
    end: N,
}

const _: () = assert!(size_of::<Node<core::sync::atomic::AtomicUsize>>() <= HEADER);

impl<N: Number> Node<N> {
    fn start(&self) -> usize {
        ptr::from_ref(self).expose_provenance() + HEADER
    }

    fn room(&self) -> usize {
        self.bytes.get() - HEADER
    }
}

/// What [`Arena::reset`] keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// Nothing: all nodes go back to the parent.
    FreeAll,
    /// One node that holds as much as all did.
    RetainCapacity,
    /// As before, but at most this many bytes.
    RetainWithLimit(usize),
}

/// An arena without its parent: what a struct keeps when it does not want to
/// store the parent twice. Dropping it leaks its nodes; [`ArenaState::promote`] it.
#[derive(Debug, Default)]
pub struct ArenaState {
    current: usize,
    requested: usize,
    retained: usize,
}

impl ArenaState {
    /// No node yet.
    pub const fn new() -> Self {
        Self {
            current: 0,
            requested: 0,
            retained: 0,
        }
    }

    /// An arena over `parent`.
    ///
    /// # Safety
    /// The state is new, or was taken from an arena over this same parent.
    pub unsafe fn promote<P: Layer, T: Threading>(self, parent: P) -> Arena<P, T> {
        let arena = Arena::<P, T>::new(parent);
        arena.current.set(self.current);
        arena.requested.set(self.requested);
        arena.retained.set(self.retained);
        arena
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct Arena<P: Layer, T: Threading = Single> {
    parent: P,
    current: T::Number,
    requested: T::Number,
    retained: T::Number,
    growing: T::Mutex,
}

/// [`Arena`] for any number of threads.
pub type SharedArena<P> = Arena<P, Shared>;

impl<P: Layer, T: Threading> Arena<P, T> {
    /// An arena that draws from `parent`; no node yet.
    pub const fn new(parent: P) -> Self {
        Self {
            parent,
            current: T::Number::ZERO,
            requested: T::Number::ZERO,
            retained: T::Number::ZERO,
            growing: T::Mutex::OPEN,
        }
    }

    /// What it draws from.
    pub const fn parent(&self) -> &P {
        &self.parent
    }

    /// Takes the arena apart; the parent comes back, too.
    pub fn into_state(self) -> (ArenaState, P) {
        let this = ManuallyDrop::new(self);
        let state = ArenaState {
            current: this.current.get(),
            requested: this.requested.get(),
            retained: this.retained.get(),
        };
        // SAFETY: `this` is never used or dropped again, so the parent moves out once.
        (state, unsafe { ptr::read(&raw const this.parent) })
    }

    fn node(&self, address: usize) -> Option<&Node<T::Number>> {
        // SAFETY: addresses in `current` and `prev` are of live nodes or 0 (A2).
        unsafe { ptr::with_exposed_provenance::<Node<T::Number>>(address).as_ref() }
    }

    fn nodes(&self) -> impl Iterator<Item = &Node<T::Number>> {
        let first = self.node(self.current.get());
        core::iter::successors(first, |node| self.node(node.prev))
    }

    /// Bytes the nodes can hold, their headers not included.
    pub fn query_capacity(&self) -> usize {
        self.nodes().map(Node::room).sum()
    }

    /// Bytes of each node, headers included, the newest first.
    pub fn node_bytes(&self) -> impl Iterator<Item = usize> {
        self.nodes().map(|node| node.bytes.get())
    }

    /// Where the memory is.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage {
            requested: self.requested.get(),
            retained: self.retained.get(),
            ..Usage::default()
        };
        for node in self.nodes() {
            usage.metadata += HEADER;
            usage.tails += node.room() - node.end.get();
            usage.committed += node.bytes.get();
        }
        usage
    }

    fn stretch<'a>(&'a self, node: &'a Node<T::Number>) -> Stretch<'a, T::Number> {
        Stretch {
            start: node.start(),
            bytes: node.room(),
            end: &node.end,
            requested: &self.requested,
            retained: &self.retained,
        }
    }

    /// The only stretch whose end moves.
    fn current(&self) -> Option<Stretch<'_, T::Number>> {
        let node = self.node(self.current.get())?;
        Some(self.stretch(node))
    }

    /// More room: the current node enlarged by the parent, or a new node.
    fn grow(&self, seen: usize, shape: Shape, caller: Caller) -> Option<()> {
        let _held = Held::new(&self.growing);
        if self.current.get() != seen {
            return Some(());
        }
        let (mut before, mut target) = (0, 0);
        let node = self.node(seen);
        if let Some(node) = node {
            let (_, next) = self.stretch(node).place(node.end.get(), shape)?;
            before = node.bytes.get();
            target = next.checked_add(HEADER)?;
            let more = before.saturating_add(before / 2).max(target);
            if target <= before || self.enlarge(node, more, caller) {
                return Some(());
            }
        }
        let least = shape.requested.checked_add(shape.align.bytes())?;
        let least = least.checked_add(HEADER + 16)?;
        let enough = before.checked_add(least)?;
        let bytes = enough.checked_add(enough / 2)?;
        // A parent that cannot give half again as much may still give enough.
        self.add_node(bytes, seen, caller)
            .or_else(|| self.enlarge(node?, target, caller).then_some(()))
            .or_else(|| self.add_node(least, seen, caller))
    }

    fn add_node(&self, bytes: usize, prev: usize, caller: Caller) -> Option<()> {
        let held = Shape::new(bytes, NODE_ALIGN);
        let block = self.parent.allocate(held, caller)?;
        self.current.set(self.place_node(block, bytes, prev));
        Some(())
    }

    /// Asks the parent to make a node `target` bytes large where it is.
    fn enlarge(&self, node: &Node<T::Number>, target: usize, caller: Caller) -> bool {
        let address = node.start() - HEADER;
        let Some(block) = NonNull::new(ptr::with_exposed_provenance_mut(address)) else {
            return false;
        };
        let held = Shape::new(node.bytes.get(), NODE_ALIGN);
        // SAFETY: a live block of the parent with this shape.
        let done = unsafe { self.parent.resize(block, held, target, caller) };
        if done {
            node.bytes.set(target);
        }
        done
    }

    fn place_node(&self, block: NonNull<u8>, bytes: usize, prev: usize) -> usize {
        let (size, end) = (T::Number::ZERO, T::Number::ZERO);
        size.set(bytes);
        let node = Node {
            prev,
            bytes: size,
            end,
        };
        // SAFETY: a fresh block of more than HEADER bytes, aligned to 16.
        unsafe { block.cast::<Node<T::Number>>().write(node) };
        block.as_ptr().expose_provenance()
    }

    fn release(&mut self, address: usize) -> usize {
        let Some((prev, bytes)) = self.node(address).map(|node| (node.prev, node.bytes.get()))
        else {
            return 0;
        };
        if let Some(block) = NonNull::new(ptr::with_exposed_provenance_mut(address)) {
            let held = Shape::new(bytes, NODE_ALIGN);
            // SAFETY: a live block of the parent with this shape; nobody uses it (A2).
            unsafe { self.parent.free(block, held, Caller::NONE) };
        }
        prev
    }

    /// Takes every block back. `false` when a node of the kept size was to be
    /// had from the parent and was refused; the arena is empty and valid anyway.
    pub fn reset(&mut self, mode: Reset) -> bool {
        let wanted = match mode {
            Reset::FreeAll => 0,
            Reset::RetainCapacity => self.query_capacity(),
            Reset::RetainWithLimit(limit) => limit.min(self.query_capacity()),
        };
        self.requested.set(0);
        self.retained.set(0);
        let mut address = self.current.get();
        while let Some(node) = self.node(address) {
            if wanted != 0 && node.prev == 0 {
                break;
            }
            address = self.release(address);
        }
        self.current.set(address);
        let Some(node) = self.node(address) else {
            return true;
        };
        node.end.set(0);
        self.fit(address, wanted + HEADER)
    }

    /// Makes the only node `target` bytes large.
    fn fit(&mut self, address: usize, target: usize) -> bool {
        let Some((node, block)) = self
            .node(address)
            .zip(NonNull::new(ptr::with_exposed_provenance_mut(address)))
        else {
            return false;
        };
        let held = Shape::new(node.bytes.get(), NODE_ALIGN);
        if held.requested == target {
            return true;
        }
        // SAFETY: a live block of the parent with this shape.
        if unsafe { self.parent.resize(block, held, target, Caller::NONE) } {
            node.bytes.set(target);
            return true;
        }
        let Some(fresh) = self.parent.allocate(held.resized(target), Caller::NONE) else {
            return false;
        };
        self.release(address);
        let address = self.place_node(fresh, target, 0);
        self.current.set(address);
        true
    }
}

impl<P: Layer, T: Threading> Drop for Arena<P, T> {
    fn drop(&mut self) {
        self.reset(Reset::FreeAll);
    }
}

// SAFETY: `end` only moves past free bytes, one caller at a time (compare-and-swap).
unsafe impl<P: Layer, T: Threading> Layer for Arena<P, T> {
    fn allocate(&self, shape: Shape, caller: Caller) -> Option<NonNull<u8>> {
        loop {
            let seen = self.current.get();
            if let Some(node) = self.node(seen)
                && let Some(at) = self.stretch(node).take(shape)
            {
                return NonNull::new(ptr::with_exposed_provenance_mut(node.start() + at));
            }
            self.grow(seen, shape, caller)?;
        }
    }

    unsafe fn resize(&self, block: NonNull<u8>, shape: Shape, to: usize, _: Caller) -> bool {
        let current = self.current();
        current.is_some_and(|stretch| stretch.resize(block.addr().get(), shape, to))
    }

    unsafe fn free(&self, block: NonNull<u8>, shape: Shape, _: Caller) {
        if let Some(stretch) = self.current() {
            stretch.give(block.addr().get(), shape);
        }
    }
}
