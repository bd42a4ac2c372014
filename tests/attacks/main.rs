//! Files that lie: model files and images made to break their reader. Each gets the error it must get, in bounded memory and time, and
//! none a panic.

mod containers;
mod corpus;
mod forge;
mod images;
mod measure;
mod models;
mod pictures;

#[global_allocator]
static ALLOCATOR: measure::Counting = measure::Counting;

/// Asserts that a message has all these parts.
fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "the message lacks {part:?}: {message}");
    }
}
