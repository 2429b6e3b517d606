//! The acceptance tests are in the test binary; the library is empty.
