//! The limiter's tables: open addressing with linear probing over memory that somebody else owns and locks.
//! Deleting shifts back what follows, so there are no graves and a look-up ends at the first free slot.

use super::gcra::Arrival;

/// What a slot holds; a key of zero is a free slot.
pub trait Slot: Copy {
    /// A slot that holds nothing.
    const FREE: Self;
    /// Never zero in a slot that is used.
    fn key(&self) -> u128;
}

/// One caller: a tenant's limit and key.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Cell {
    key: [u64; 2],
    /// Whose share it counts in.
    pub tenant: u64,
    /// When its bucket is full again.
    pub arrival: Arrival,
}

impl Cell {
    /// A cell for `key`.
    pub fn new(key: u128, tenant: u64, arrival: Arrival) -> Self {
        Self { key: [(key >> 64) as u64, key as u64], tenant, arrival }
    }
}

impl Slot for Cell {
    const FREE: Self = Cell { key: [0; 2], tenant: 0, arrival: Arrival { micros: 0, part: 0, per: 1 } };

    fn key(&self) -> u128 {
        u128::from(self.key[0]) << 64 | u128::from(self.key[1])
    }
}

/// How many cells a tenant has.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Share {
    /// The tenant.
    pub tenant: u64,
    /// None of its cells is over before this time, so that looking for one earlier is in vain.
    pub search_after: i64,
    /// Its cells.
    pub used: u32,
}

impl Slot for Share {
    const FREE: Self = Share { tenant: 0, search_after: 0, used: 0 };

    fn key(&self) -> u128 {
        u128::from(self.tenant)
    }
}

/// A hash table in borrowed memory. Its length is a power of two.
pub struct Table<'a, T> {
    used: &'a mut u32,
    slots: &'a mut [T],
}

impl<'a, T: Slot> Table<'a, T> {
    /// Takes over memory that holds `used` slots.
    pub fn new(used: &'a mut u32, slots: &'a mut [T]) -> Self {
        debug_assert!(slots.len().is_power_of_two());
        Self { used, slots }
    }

    /// The slot of a key.
    pub fn find(&mut self, key: u128) -> Option<&mut T> {
        let place = self.place(key);
        (self.slots[place].key() == key).then(|| &mut self.slots[place])
    }

    /// Adds a slot whose key is not there; false where the table is full.
    pub fn insert(&mut self, slot: T) -> bool {
        // An eighth stays free, so that look-ups stay short.
        if *self.used as usize >= self.slots.len() - self.slots.len() / 8 {
            return false;
        }
        let place = self.place(slot.key());
        debug_assert_eq!(self.slots[place].key(), 0);
        self.slots[place] = slot;
        *self.used += 1;
        true
    }

    /// Removes a key, if it is there.
    pub fn remove(&mut self, key: u128) {
        let place = self.place(key);
        if self.slots[place].key() == key {
            self.remove_at(place);
        }
    }

    /// Removes every slot that `over` holds for.
    pub fn sweep(&mut self, mut over: impl FnMut(&T) -> bool) {
        let mut place = 0;
        while place < self.slots.len() {
            // Removing moves another slot into this place: look again.
            if self.slots[place].key() != 0 && over(&self.slots[place]) {
                self.remove_at(place);
            } else {
                place += 1;
            }
        }
    }

    /// The place of a key, or the free place it would take.
    fn place(&self, key: u128) -> usize {
        let mask = self.slots.len() - 1;
        let mut place = key as usize & mask;
        loop {
            let found = self.slots[place].key();
            if found == key || found == 0 {
                return place;
            }
            place = (place + 1) & mask;
        }
    }

    fn remove_at(&mut self, mut hole: usize) {
        let mask = self.slots.len() - 1;
        let mut place = hole;
        loop {
            place = (place + 1) & mask;
            let key = self.slots[place].key();
            if key == 0 {
                break;
            }
            let home = key as usize & mask;
            // It may move into the hole unless its home lies behind the hole.
            if (place.wrapping_sub(home) & mask) >= (place.wrapping_sub(hole) & mask) {
                self.slots[hole] = self.slots[place];
                hole = place;
            }
        }
        self.slots[hole] = T::FREE;
        *self.used -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::{Arrival, Cell, Slot, Table};
    use std::collections::HashMap;

    fn cell(key: u128, micros: i64) -> Cell {
        Cell::new(key, 1, Arrival { micros, part: 0, per: 1 })
    }

    #[test]
    fn it_agrees_with_a_hash_map_over_random_operations() {
        let mut slots = vec![Cell::FREE; 64];
        let mut used = 0;
        let mut table = Table::new(&mut used, &mut slots);
        let mut model: HashMap<u128, i64> = HashMap::new();
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        for step in 0..200_000_i64 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // Keys that collide: few homes, many keys.
            let key = u128::from(state % 90 + 1) << 64 | u128::from(state % 23);
            match (state >> 32) % 8 {
                0..=3 => {
                    if let Some(found) = table.find(key) {
                        assert!(model.contains_key(&key));
                        found.arrival.micros = step;
                        model.insert(key, step);
                    } else {
                        assert!(!model.contains_key(&key));
                        if table.insert(cell(key, step)) {
                            model.insert(key, step);
                        } else {
                            assert_eq!(model.len(), 56);
                        }
                    }
                }
                4..=6 => {
                    table.remove(key);
                    model.remove(&key);
                }
                _ if step % 97 == 0 => {
                    table.sweep(|cell| cell.arrival.micros % 3 == 0);
                    model.retain(|_, micros| *micros % 3 != 0);
                }
                _ => {}
            }
            assert_eq!(*table.used as usize, model.len());
        }
        for (key, micros) in model {
            assert_eq!(table.find(key).expect("it is there").arrival.micros, micros);
        }
    }
}
