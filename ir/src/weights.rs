//! Where the bytes of weights come from.

use std::borrow::Cow;
use std::collections::HashMap;

/// A source of weight bytes by name. The IR itself holds declarations only.
pub trait Weights: Sync {
    /// The bytes of weight `name`, in the layout and *stored* dtype that the module declares;
    /// `None` where there is no such weight.
    fn bytes(&self, name: &str) -> Option<Cow<'_, [u8]>>;
}

/// Bytes by name, for small models; the empty map is for modules without weights.
impl Weights for HashMap<String, Vec<u8>> {
    fn bytes(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        self.get(name).map(|bytes| Cow::Borrowed(bytes.as_slice()))
    }
}
