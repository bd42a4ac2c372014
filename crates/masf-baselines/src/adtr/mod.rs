//! ADTR (You et al., "ADTR: anomaly detection transformer with feature reconstruction", ICONIP 2022), of a size that trains on a CPU.
//!
//! The features of all levels, averaged over the cells of the coarsest grid and concatenated, are the tokens `f` of an image. An
//! encoder of attention layers reads them; a decoder, which sees nothing but learned queries (one for each position) and the encoder's
//! output, restores them. Since the queries know normal images alone, what is not normal is restored badly.
//!
//! ```text
//! x = f A + p;  encoder: x = n(x + attend(x, x));  x = n(x + W2 relu(W1 x))
//! q learned;    decoder: q = n(q + attend(q, q));  q = n(q + attend(q, x));  q = n(q + W2 relu(W1 q))
//! L = mean of (q B + b - f)^2                     score = |q B + b - f|
//! ```

mod fit;
mod model;
mod network;
mod params;

pub use fit::AdtrFit;
pub use model::Adtr;
pub use params::AdtrParams;
