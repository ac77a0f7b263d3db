//! A map whose copies share what has not changed since: a snapshot is made from a copy while commands go on, and copying a
//! hundred thousand jobs one by one would hold up every command meanwhile.

use std::{borrow::Borrow, collections::BTreeMap, ops::Index, sync::Arc};

/// A sorted map with cheap copies; a value is copied when it is changed while another copy of the map has it.
#[derive(Debug, Clone)]
pub(crate) struct Shelf<K, V>(BTreeMap<K, Arc<V>>);

impl<K, V> Default for Shelf<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord, V: Clone> Shelf<K, V> {
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.0.get(key).map(Borrow::borrow)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.0.get_mut(key).map(Arc::make_mut)
    }

    pub(crate) fn contains_key(&self, key: &K) -> bool {
        self.0.contains_key(key)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.0.insert(key, Arc::new(value));
    }

    pub(crate) fn remove(&mut self, key: &K) {
        self.0.remove(key);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value.as_ref()))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }
}

#[cfg(test)]
impl<K: Ord, V> Shelf<K, V> {
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.0.values().map(Borrow::borrow)
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn pop_first(&mut self) -> Option<(K, Arc<V>)> {
        self.0.pop_first()
    }
}

impl<K: Ord, V> Index<&K> for Shelf<K, V> {
    type Output = V;

    fn index(&self, key: &K) -> &V {
        &self.0[key]
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for Shelf<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(key, value)| (key, Arc::new(value))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_keeps_what_was_when_it_was_made() {
        let mut shelf: Shelf<u8, Vec<u8>> = [(1, vec![1]), (2, vec![2])].into_iter().collect();
        let copy = shelf.clone();
        shelf.get_mut(&1).unwrap().push(9);
        shelf.remove(&2);
        shelf.insert(3, vec![3]);
        assert_eq!((&copy[&1], copy.get(&2), copy.get(&3)), (&vec![1], Some(&vec![2]), None));
        assert_eq!((&shelf[&1], shelf.get(&2), shelf.get(&3)), (&vec![1, 9], None, Some(&vec![3])));
    }
}
