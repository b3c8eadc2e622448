//! An allocator for a process that lives milliseconds.
//!
//! musl's malloc maps and unmaps memory for every vector that grows; parsing one config.json makes dozens of such calls. A
//! runtime's process ends before freed memory would be worth having back, so this hands out one arena front to back, and
//! takes back only the block handed out last (a vector that grows, a text that is built and dropped). What does not fit any more
//! goes to the system's allocator, so that a process that does live long (a foreground run, `events`) only loses the arena.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The arena's size in bytes. It lies in the program's zeroed memory: only the pages that are touched exist.
const ARENA: usize = 1 << 20;

/// Every block begins at a multiple of this, as from malloc(3): nix puts control messages into a `Vec<u8>` and counts on it.
const MIN_ALIGN: usize = 16;

/// See the module.
pub struct Bump {
    arena: UnsafeCell<[u8; ARENA]>,
    /// How much of the arena is taken.
    used: AtomicUsize,
}

// SAFETY: the arena is only ever given out in disjoint blocks, whose places are claimed by compare-and-swap on `used`.
unsafe impl Sync for Bump {}

impl Bump {
    /// An empty arena, for a `#[global_allocator]`.
    #[expect(clippy::new_without_default, reason = "for a static only; Default would put a mebibyte on the stack")]
    pub const fn new() -> Bump {
        Bump { arena: UnsafeCell::new([0; ARENA]), used: AtomicUsize::new(0) }
    }

    fn base(&self) -> usize {
        self.arena.get() as usize
    }

    /// The place of a block in the arena, if it is of the arena.
    fn offset(&self, block: *mut u8) -> Option<usize> {
        (block as usize).checked_sub(self.base()).filter(|o| *o < ARENA)
    }
}

// SAFETY: blocks are disjoint, aligned and live until they are given back; a block that was not the last stays taken. GlobalAlloc
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut used = self.used.load(Relaxed);
        loop {
            let start = (self.base() + used).next_multiple_of(layout.align().max(MIN_ALIGN)) - self.base();
            let Some(end) = start.checked_add(layout.size()).filter(|end| *end <= ARENA) else {
                // SAFETY: the caller's layout, passed on. GlobalAlloc
                return unsafe { System.alloc(layout) };
            };
            match self.used.compare_exchange_weak(used, end, Relaxed, Relaxed) {
                // SAFETY: `start` is inside the arena. pointer::add
                Ok(_) => return unsafe { self.arena.get().cast::<u8>().add(start) },
                Err(now) => used = now,
            }
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match self.offset(block) {
            // Only the last block is taken back; if it is not the last, nothing changes.
            Some(start) => drop(self.used.compare_exchange(start + layout.size(), start, Relaxed, Relaxed)),
            // SAFETY: not of the arena, so it is the system's. GlobalAlloc
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(start) = self.offset(block) else {
            // SAFETY: not of the arena, so it is the system's. GlobalAlloc
            return unsafe { System.realloc(block, layout, size) };
        };
        let last = start + layout.size();
        if start + size <= ARENA && self.used.compare_exchange(last, start + size, Relaxed, Relaxed).is_ok() {
            return block;
        }
        if size <= layout.size() {
            return block;
        }
        // SAFETY: the old alignment, and a size that the caller vouches for. Layout::from_size_align_unchecked
        let new_layout = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: as above. GlobalAlloc
        let new = unsafe { self.alloc(new_layout) };
        if !new.is_null() {
            // SAFETY: both blocks are at least the old size long and, being two, do not overlap. ptr::copy_nonoverlapping
            unsafe { std::ptr::copy_nonoverlapping(block, new, layout.size()) };
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_block_grows_in_place_and_is_taken_back() {
        static BUMP: Bump = Bump::new();
        let layout = Layout::from_size_align(10, 8).unwrap();
        // SAFETY: a valid layout.
        let a = unsafe { BUMP.alloc(layout) };
        // SAFETY: `a` is of this allocator and layout.
        assert_eq!(unsafe { BUMP.realloc(a, layout, 100) }, a);
        let grown = Layout::from_size_align(100, 8).unwrap();
        // SAFETY: a valid layout.
        let b = unsafe { BUMP.alloc(layout) };
        assert!(b as usize >= a as usize + 100 && (b as usize).is_multiple_of(MIN_ALIGN));
        // SAFETY: `a` is of this allocator and is not the last block.
        let moved = unsafe { BUMP.realloc(a, grown, 200) };
        assert_ne!(moved, a);
        let before = BUMP.used.load(Relaxed);
        // SAFETY: `moved` is of this allocator and the last block.
        unsafe { BUMP.dealloc(moved, Layout::from_size_align(200, 8).unwrap()) };
        assert_eq!(BUMP.used.load(Relaxed), before - 200);
    }

    #[test]
    fn what_does_not_fit_is_the_systems() {
        static BUMP: Bump = Bump::new();
        let layout = Layout::from_size_align(ARENA + 1, 8).unwrap();
        // SAFETY: a valid layout.
        let block = unsafe { BUMP.alloc(layout) };
        assert!(!block.is_null() && BUMP.offset(block).is_none());
        // SAFETY: `block` is of this allocator and layout.
        unsafe { BUMP.dealloc(block, layout) };
    }
}
