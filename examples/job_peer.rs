//! Our side of `benches/peers/run job`: inspects images on request, one line of standard input at a time.
//!
//! ```text
//! inspect FILE     the milliseconds from the file to the verdict, and the raw image score
//! folder FILE...   the milliseconds for all of the files, decoded ahead as `inspect` does, and how many could be read
//! ```
//!
//! The files of a request are separated by tabs.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use masf_examples::{Common, ModelArgs, run};

/// Answer the requests of a comparison.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    common: Common,
}

/// Images of a call, as in `inspect`.
const CHUNK: usize = 16;

fn main() -> ExitCode {
    let args = Args::parse();
    run(|| {
        args.common.apply()?;
        let detector = args.model.load()?;
        let mut answers = std::io::stdout().lock();
        for line in std::io::stdin().lock().lines() {
            let line = line?;
            let mut words = line.split('\t');
            let request = words.next().unwrap_or_default();
            let files: Vec<PathBuf> = words.map(PathBuf::from).collect();
            let started = Instant::now();
            let milliseconds = || started.elapsed().as_secs_f64() * 1e3;
            match (request, files.as_slice()) {
                ("inspect", [file]) => {
                    let found = detector.inspect(file)?;
                    writeln!(answers, "{} {}", milliseconds(), found.image_score)?;
                }
                ("folder", files) => {
                    let mut read = 0;
                    for chunk in files.chunks(CHUNK) {
                        let found = detector.inspect_batch(chunk.iter().map(PathBuf::as_path));
                        read += found.iter().filter(|found| found.is_ok()).count();
                    }
                    writeln!(answers, "{} {read}", milliseconds())?;
                }
                _ => anyhow::bail!("`{line}` is no request"),
            }
            answers.flush()?;
        }
        Ok(ExitCode::SUCCESS)
    })
}
