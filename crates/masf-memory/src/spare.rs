//! Buffers that outlive a task, so that inspecting image after image does not ask the system for the same memory again and again.

use std::sync::{Mutex, PoisonError};

/// Values that are not in use, at most as many as there ever were tasks at once.
#[derive(Debug)]
pub(crate) struct Spare<T>(Mutex<Vec<T>>);

impl<T> Default for Spare<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// A copy has its own, none so far.
impl<T> Clone for Spare<T> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<T: Default> Spare<T> {
    /// Lends `action` a value, with whatever the last one left in it.
    pub(crate) fn with<R>(&self, action: impl FnOnce(&mut T) -> R) -> R {
        let spare = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut value = spare().pop().unwrap_or_default();
        let result = action(&mut value);
        spare().push(value);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_lent_to_one_at_a_time_and_again() {
        let spare = Spare::<Vec<u8>>::default();
        spare.with(|outer| {
            outer.push(1);
            spare.with(|inner| assert!(inner.is_empty(), "it is lent twice"));
        });
        let found = || spare.with(std::mem::take);
        assert!([found(), found()].contains(&vec![1]));
        assert!(spare.clone().with(|value| value.is_empty()));
    }
}
