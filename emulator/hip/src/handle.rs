//! Handles: numbers that stand for objects of the runtime.
//!
//! They are looked up, never dereferenced, so a handle that was destroyed or never existed is an
//! error like any other. To the program they look like pointers, to addresses that nothing is at.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::types::Handle;

/// Where handles start: in the user's half of the addresses, far from where Linux maps anything.
const FIRST: usize = 0x1157_0000_0000;

/// A handle that no other object of the process has.
pub fn fresh() -> Handle {
    static NEXT: AtomicUsize = AtomicUsize::new(FIRST);
    NEXT.fetch_add(16, Ordering::Relaxed)
}

/// Objects by their handles.
pub struct Table<T: ?Sized>(Mutex<BTreeMap<Handle, Arc<T>>>);

impl<T: ?Sized> Default for Table<T> {
    fn default() -> Self {
        Table(Mutex::default())
    }
}

impl<T: ?Sized> Table<T> {
    /// Enters an object under a handle.
    pub fn insert(&self, handle: Handle, object: Arc<T>) {
        lock(&self.0).insert(handle, object);
    }

    /// The object of a handle.
    pub fn get(&self, handle: Handle) -> Option<Arc<T>> {
        lock(&self.0).get(&handle).cloned()
    }

    /// Takes an object out.
    pub fn remove(&self, handle: Handle) -> Option<Arc<T>> {
        lock(&self.0).remove(&handle)
    }

    /// Every object.
    pub fn all(&self) -> Vec<Arc<T>> {
        lock(&self.0).values().cloned().collect()
    }

    /// Takes out every object for which `condition` holds.
    pub fn remove_if(&self, mut condition: impl FnMut(&T) -> bool) {
        lock(&self.0).retain(|_, object| !condition(object));
    }
}

/// Locks a mutex, also after a panic elsewhere: what it guards is changed in single steps.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_found_until_they_are_removed() {
        let table = Table::default();
        let (first, second) = (fresh(), fresh());
        assert_ne!(first, second);
        table.insert(first, Arc::new(1));
        assert_eq!(table.get(first).as_deref(), Some(&1));
        assert_eq!(table.get(second), None);
        assert_eq!(table.remove(first).as_deref(), Some(&1));
        assert_eq!(table.get(first), None);
    }
}
