//! A host that remembers what it was told.

use std::cell::RefCell;
use std::collections::HashMap;

use super::host::{Host, IntVariable, MessageClass, TextVariable};

/// A host over vectors.
#[derive(Debug, Default)]
pub(super) struct FakeHost {
    messages: RefCell<Vec<(MessageClass, String)>>,
    texts: RefCell<HashMap<String, String>>,
    status: RefCell<Option<char>>,
}

impl FakeHost {
    /// What was sent so far; forgets it.
    pub(super) fn messages(&self) -> Vec<(MessageClass, String)> {
        self.messages.take()
    }

    /// Answers [`Host::text`].
    pub(super) fn set_text(&self, variable: TextVariable, text: &str) {
        self.texts
            .borrow_mut()
            .insert(format!("{variable:?}"), text.to_owned());
    }

    /// Answers [`IntVariable::JobStatus`].
    pub(super) fn set_status(&self, status: char) {
        *self.status.borrow_mut() = Some(status);
    }
}

impl Host for FakeHost {
    fn message(&self, class: MessageClass, text: &str) {
        self.messages.borrow_mut().push((class, text.to_owned()));
    }

    fn int(&self, variable: IntVariable) -> Option<i32> {
        match variable {
            IntVariable::JobId => Some(7),
            IntVariable::JobStatus => {
                let status = self.status.borrow().unwrap_or('R');
                i32::try_from(u32::from(status)).ok()
            }
        }
    }

    fn text(&self, variable: TextVariable) -> Option<String> {
        self.texts.borrow().get(&format!("{variable:?}")).cloned()
    }
}
