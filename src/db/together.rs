//! Rows read together: whoever asks while one statement is under way shares the next. A burst of changes, the
//! timers of objects that came together, and the first list after a start are then a few statements, not one
//! an object.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
};

use tokio::sync::oneshot;

use super::Result;

pub struct Together<K, V> {
    asked: Mutex<Vec<Question<K, V>>>,
    /// Held by who reads.
    turn: tokio::sync::Mutex<()>,
}

struct Question<K, V> {
    key: K,
    answer: oneshot::Sender<Option<V>>,
}

impl<K, V> Default for Together<K, V> {
    fn default() -> Self {
        Self { asked: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }
}

impl<K: Clone + Eq + Hash + Ord, V: Clone> Together<K, V> {
    /// What `read` finds for this key, read after the call; `read` is asked for many keys at once.
    ///
    /// # Errors
    /// When `read` fails.
    pub async fn read<F>(&self, key: &K, read: impl FnOnce(Vec<K>) -> F) -> Result<Option<V>>
    where
        F: Future<Output = Result<HashMap<K, V>>>,
    {
        let (answer, mut answered) = oneshot::channel();
        self.questions().push(Question { key: key.clone(), answer });
        let _turn = self.turn.lock().await;
        if let Ok(value) = answered.try_recv() {
            return Ok(value);
        }
        // Nobody has read it yet, or who did could not and has told only itself. Those who were woken with this one
        // ask now.
        tokio::task::yield_now().await;
        let questions = std::mem::take(&mut *self.questions());
        let mut keys: Vec<K> = questions.iter().map(|question| question.key.clone()).collect();
        keys.push(key.clone());
        keys.sort_unstable();
        keys.dedup();
        let found = read(keys).await?;
        for Question { key, answer } in questions {
            // One that waits no longer needs none.
            let _ = answer.send(found.get(&key).cloned());
        }
        Ok(found.get(key).cloned())
    }

    fn questions(&self) -> std::sync::MutexGuard<'_, Vec<Question<K, V>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::db::Error;

    #[tokio::test]
    async fn those_who_ask_during_a_statement_share_the_next() {
        let (together, statements) = (Together::default(), RefCell::new(Vec::new()));
        let read = |keys: Vec<u32>| {
            statements.borrow_mut().push(keys.clone());
            async move {
                tokio::task::yield_now().await;
                Ok(keys.into_iter().filter(|key| *key != 3).map(|key| (key, key * 10)).collect())
            }
        };
        let answers =
            futures::future::try_join_all([1, 2, 3, 2].iter().map(|key| together.read(key, read))).await.unwrap();
        assert_eq!(answers, [Some(10), Some(20), None, Some(20)]);
        assert_eq!(*statements.borrow(), [[1, 2, 3]]);
        let late = async {
            tokio::task::yield_now().await;
            futures::future::try_join(together.read(&5, read), together.read(&6, read)).await
        };
        let (first, late) = futures::future::try_join(together.read(&4, read), late).await.unwrap();
        assert_eq!((first, late), (Some(40), (Some(50), Some(60))));
        assert_eq!(statements.borrow()[1..], [vec![4], vec![5, 6]]);
    }

    #[tokio::test]
    async fn who_reads_in_vain_tells_only_itself() {
        let together: Together<u32, u32> = Together::default();
        let fails = together.read(&1, async |_| Err(Error::Overtaken));
        let works = together.read(&2, async |keys| Ok(keys.into_iter().map(|key| (key, key)).collect()));
        let (failed, worked) = tokio::join!(fails, works);
        assert!(failed.is_err());
        assert_eq!(worked.unwrap(), Some(2));
    }
}
