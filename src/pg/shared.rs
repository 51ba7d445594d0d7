//! Shared memory: asked for when the server starts with the library preloaded, used by every backend until it stops.
//!
//! A domain declares what it wants as a static ([`SharedTables`], [`SharedSlice`]), asks for it from `_PG_init`
//! (`request`), and finds it there, or finds `None` where the library was not preloaded. A crash of a backend makes the postmaster
//! begin anew with fresh memory, so nothing half-written is ever seen.

use super::guard::boundary;
use pgrx::pg_sys;
use std::ffi::CStr;
use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

/// Every partition and slice begins on a cache line of its own.
const LINE: usize = 64;
const TRANCHE: &CStr = c"pg_tenancy";

/// A piece of shared memory.
trait Region: Sync {
    fn name(&self) -> &'static CStr;
    fn bytes(&self) -> usize;
    fn locks(&self) -> usize;
    /// Takes the memory over; `fresh` where nobody has written it yet.
    ///
    /// # Safety
    /// `memory` holds `bytes()` bytes, aligned to a line; `locks` are `locks()` locks; both live until the server stops.
    unsafe fn attach(&self, memory: *mut u8, locks: *mut pg_sys::LWLockPadded, fresh: bool);
}

static REGIONS: Mutex<Vec<&'static dyn Region>> = Mutex::new(Vec::new());
/// Set in the postmaster; every backend inherits it by fork.
static START: OnceLock<Instant> = OnceLock::new();

fn regions() -> Vec<&'static dyn Region> {
    REGIONS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Whether the server is starting and the library is being preloaded: the only time shared memory can be had.
pub fn is_preloading() -> bool {
    // SAFETY: reads a flag of the process.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// Microseconds since the server started, by a clock that never goes back and is the same in every backend.
pub fn uptime_micros() -> i64 {
    START.get_or_init(Instant::now).elapsed().as_micros() as i64
}

/// Called from `_PG_init` after every `request` of tables and slices.
pub(super) fn register() {
    if !is_preloading() {
        return;
    }
    START.get_or_init(Instant::now);
    // SAFETY: called once, in the postmaster, before its shared memory is made; hooks chain.
    unsafe {
        #[cfg(not(feature = "pg14"))]
        {
            NEXT_REQUEST = pg_sys::shmem_request_hook;
            pg_sys::shmem_request_hook = Some(request_memory);
        }
        #[cfg(feature = "pg14")]
        request_memory();
        NEXT_STARTUP = pg_sys::shmem_startup_hook;
        pg_sys::shmem_startup_hook = Some(start_up);
    }
}

#[cfg(not(feature = "pg14"))]
static mut NEXT_REQUEST: pg_sys::shmem_request_hook_type = None;
static mut NEXT_STARTUP: pg_sys::shmem_startup_hook_type = None;

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn request_memory() {
    // SAFETY: called by the postmaster when it adds up what it will need.
    unsafe {
        #[cfg(not(feature = "pg14"))]
        if let Some(next) = NEXT_REQUEST {
            next();
        }
        let regions = regions();
        let bytes: usize = regions.iter().map(|region| region.bytes() + 2 * LINE).sum();
        let locks: usize = regions.iter().map(|region| region.locks()).sum();
        pg_sys::RequestAddinShmemSpace(bytes);
        pg_sys::RequestNamedLWLockTranche(TRANCHE.as_ptr(), locks as i32);
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn start_up() {
    // SAFETY: called by the postmaster, under no lock of ours; each region gets what it asked for.
    unsafe {
        if let Some(next) = NEXT_STARTUP {
            next();
        }
        let mut locks = pg_sys::GetNamedLWLockTranche(TRANCHE.as_ptr());
        for region in regions() {
            let mut found = false;
            let memory =
                pg_sys::ShmemInitStruct(region.name().as_ptr(), region.bytes() + LINE, &mut found).cast::<u8>();
            let memory = memory.add(memory.align_offset(LINE));
            region.attach(memory, locks, !found);
            locks = locks.add(region.locks());
        }
    }
}

/// Holds a lock for as long as it lives.
struct Held(*mut pg_sys::LWLock);

impl Held {
    /// # Safety
    /// `lock` is one of the tranche.
    unsafe fn exclusive(lock: *mut pg_sys::LWLockPadded) -> Self {
        // SAFETY: by the caller; interrupts wait until the lock is released.
        unsafe {
            let lock = &raw mut (*lock).lock;
            boundary(|| pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE));
            Held(lock)
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: acquired by this value and by nobody released since.
        unsafe { pg_sys::LWLockRelease(self.0) }
    }
}

/// Slots of plain data in several partitions, each under a lock of its own.
pub struct SharedTables<T: 'static> {
    name: &'static CStr,
    partitions: usize,
    /// What a slot holds at first.
    free: T,
    slots: AtomicUsize,
    memory: AtomicPtr<u8>,
    locks: AtomicPtr<pg_sys::LWLockPadded>,
}

impl<T: Copy + Send + Sync> SharedTables<T> {
    /// Declares them; nothing is there until [`SharedTables::request`] and the start of the server.
    pub const fn new(name: &'static CStr, partitions: usize, free: T) -> Self {
        Self {
            name,
            partitions,
            free,
            slots: AtomicUsize::new(0),
            memory: AtomicPtr::new(ptr::null_mut()),
            locks: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Asks for `slots` in each partition. From `_PG_init`, while preloading.
    pub fn request(&'static self, slots: usize) {
        self.slots.store(slots, Relaxed);
        REGIONS.lock().unwrap_or_else(PoisonError::into_inner).push(self);
    }

    /// Whether they are there.
    pub fn is_there(&self) -> bool {
        !self.memory.load(Relaxed).is_null()
    }

    /// Works on one partition under its lock: its count of used slots and the slots. `None` where there is no shared
    /// memory. `work` must be short, raise nothing and take no other lock.
    pub fn with<R>(&self, partition: usize, work: impl FnOnce(&mut u32, &mut [T]) -> R) -> Option<R> {
        let memory = self.memory.load(Relaxed);
        if memory.is_null() || partition >= self.partitions {
            return None;
        }
        // SAFETY: `attach` laid the partitions out one after the other and initialised every slot; the lock makes this
        // backend the only one to look at this partition.
        unsafe {
            let _held = Held::exclusive(self.locks.load(Relaxed).add(partition));
            let start = memory.add(partition * self.partition_bytes());
            let used = &mut *start.cast::<u32>();
            let slots = std::slice::from_raw_parts_mut(start.add(LINE).cast::<T>(), self.slots.load(Relaxed));
            Some(work(used, slots))
        }
    }

    fn partition_bytes(&self) -> usize {
        LINE + (self.slots.load(Relaxed) * size_of::<T>()).next_multiple_of(LINE)
    }
}

impl<T: Copy + Send + Sync> Region for SharedTables<T> {
    fn name(&self) -> &'static CStr {
        self.name
    }

    fn bytes(&self) -> usize {
        self.partitions * self.partition_bytes()
    }

    fn locks(&self) -> usize {
        self.partitions
    }

    unsafe fn attach(&self, memory: *mut u8, locks: *mut pg_sys::LWLockPadded, fresh: bool) {
        if fresh {
            for partition in 0..self.partitions {
                // SAFETY: within the bytes asked for, by the layout that `with` reads.
                unsafe {
                    let start = memory.add(partition * self.partition_bytes());
                    start.cast::<u32>().write(0);
                    for slot in 0..self.slots.load(Relaxed) {
                        start.add(LINE).cast::<T>().add(slot).write(self.free);
                    }
                }
            }
        }
        self.locks.store(locks, Relaxed);
        self.memory.store(memory, Relaxed);
    }
}

/// Values that backends share without a lock (atomics, or what never changes), and one lock for what needs one.
pub struct SharedSlice<T: 'static> {
    name: &'static CStr,
    make: fn() -> T,
    length: AtomicUsize,
    memory: AtomicPtr<T>,
    lock: AtomicPtr<pg_sys::LWLockPadded>,
    holds: PhantomData<T>,
}

impl<T: Sync + Send> SharedSlice<T> {
    /// Declares it; `make` gives each element its first value, in the postmaster.
    pub const fn new(name: &'static CStr, make: fn() -> T) -> Self {
        Self {
            name,
            make,
            length: AtomicUsize::new(0),
            memory: AtomicPtr::new(ptr::null_mut()),
            lock: AtomicPtr::new(ptr::null_mut()),
            holds: PhantomData,
        }
    }

    /// Asks for `length` elements. From `_PG_init`, while preloading.
    pub fn request(&'static self, length: usize) {
        self.length.store(length, Relaxed);
        REGIONS.lock().unwrap_or_else(PoisonError::into_inner).push(self);
    }

    /// The elements; `None` where there is no shared memory.
    pub fn get(&self) -> Option<&'static [T]> {
        let memory = self.memory.load(Relaxed);
        // SAFETY: `attach` initialised `length` elements, which live until the server stops.
        (!memory.is_null()).then(|| unsafe { std::slice::from_raw_parts(memory, self.length.load(Relaxed)) })
    }

    /// Works under the slice's lock. `work` must be short, raise nothing and take no other lock.
    pub fn locked<R>(&self, work: impl FnOnce(&'static [T]) -> R) -> Option<R> {
        let elements = self.get()?;
        // SAFETY: the lock was given with the memory.
        let _held = unsafe { Held::exclusive(self.lock.load(Relaxed)) };
        Some(work(elements))
    }
}

impl<T: Sync + Send> Region for SharedSlice<T> {
    fn name(&self) -> &'static CStr {
        self.name
    }

    fn bytes(&self) -> usize {
        (self.length.load(Relaxed) * size_of::<T>()).next_multiple_of(LINE)
    }

    fn locks(&self) -> usize {
        1
    }

    unsafe fn attach(&self, memory: *mut u8, locks: *mut pg_sys::LWLockPadded, fresh: bool) {
        let elements = memory.cast::<T>();
        if fresh {
            for index in 0..self.length.load(Relaxed) {
                // SAFETY: within the bytes asked for.
                unsafe { elements.add(index).write((self.make)()) };
            }
        }
        self.lock.store(locks, Relaxed);
        self.memory.store(elements, Relaxed);
    }
}
