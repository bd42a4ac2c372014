//! Our side of `benches/peers/run search` and `benches/peers/run coreset`: searches and chooses on request, so that another
//! process can alternate with it.
//!
//! Reads requests from standard input and answers each with numbers:
//!
//! - `open FILE` loads the tensors of a safetensors file (`f32`, two axes);
//! - `exact BANK D`, `shortlist BANK D DIRECTIONS CANDIDATES`, `cells BANK D CELLS VISITED FROM TO`, `hnsw BANK D CONNECTIONS SEARCH` make a search among the rows of the
//!   tensor BANK, with distances of the first D entries (and cells keyed by the entries FROM to TO); answer: milliseconds;
//! - `search QUERIES` searches for the rows of a tensor; answer: milliseconds, and the indices of the nearest where the request ends
//!   with `indices`;
//! - `coreset POINTS COUNT PROJECTION FIRST` chooses; answer: milliseconds;
//! - `chosen` answers with the indices chosen last.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::time::Instant;

use candle_core::{Device, Tensor, safetensors};
use masf_core::Silent;
use masf_memory::{CellParams, CellSearch, ExactSearch, LinearMap, PrototypeSearch, ShortlistSearch, greedy_k_centre};

type AnyResult<T> = Result<T, Box<dyn std::error::Error>>;

struct Peer {
    tensors: HashMap<String, (Vec<f32>, usize)>,
    search: Option<Box<dyn PrototypeSearch>>,
    chosen: Vec<usize>,
}

fn main() -> AnyResult<()> {
    let mut peer = Peer { tensors: HashMap::new(), search: None, chosen: Vec::new() };
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = peer.answer(&words)?;
        println!("{answer}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

impl Peer {
    fn answer(&mut self, words: &[&str]) -> AnyResult<String> {
        let number = |index: usize| -> AnyResult<usize> { Ok(words.get(index).ok_or("too few words")?.parse()?) };
        let name = words.get(1).copied().unwrap_or_default();
        match words.first().copied() {
            Some("open") => {
                for (name, tensor) in safetensors::load(name, &Device::Cpu)? {
                    self.tensors.insert(name, rows(&tensor)?);
                }
                Ok("0".into())
            }
            Some("exact" | "shortlist" | "cells" | "hnsw") => {
                let (bank, dimensions) = self.tensors.get(name).ok_or("no such tensor")?.clone();
                let measured = number(2)?;
                let start = Instant::now();
                self.search = Some(match words[0] {
                    "exact" => Box::new(ExactSearch::new(columns(&bank, dimensions, measured), measured)?),
                    "shortlist" => {
                        let rows = columns(&bank, dimensions, measured);
                        Box::new(ShortlistSearch::new(rows, measured, number(3)?, number(4)?)?)
                    }
                    "cells" => {
                        let (cells, visited, key) = (number(3)?, number(4)?, number(5)?..number(6)?);
                        let params = CellParams { cells, visited, distance: 0..measured, key, seed: 0 };
                        Box::new(CellSearch::new(bank, dimensions, params)?)
                    }
                    _ => graph(columns(&bank, dimensions, measured), measured, number(3)?, number(4)?)?,
                });
                Ok(milliseconds(start))
            }
            Some("search") => {
                let search = self.search.as_ref().ok_or("no search")?;
                let (queries, dimensions) = self.tensors.get(name).ok_or("no such tensor")?;
                let queries = columns(queries, *dimensions, search.dimensions());
                let start = Instant::now();
                let found = search.nearest(&queries, 1)?;
                let time = milliseconds(start);
                Ok(if words.contains(&"indices") { format!("{time} {}", join(&found.indices)) } else { time })
            }
            Some("coreset") => {
                let (points, dimensions) = self.tensors.get(name).ok_or("no such tensor")?;
                let (count, projection, first) = (number(2)?, number(3)?, number(4)?);
                let start = Instant::now();
                let chosen = if projection > 0 {
                    let projected = LinearMap::random(*dimensions, projection, 0, "peer")?.apply(points)?;
                    greedy_k_centre(&projected, projection, count, first, &Silent)?
                } else {
                    greedy_k_centre(points, *dimensions, count, first, &Silent)?
                };
                self.chosen = chosen.indices;
                Ok(milliseconds(start))
            }
            Some("chosen") => Ok(join(&self.chosen)),
            other => Err(format!("unknown request {other:?}").into()),
        }
    }
}

#[cfg(feature = "hnsw")]
fn graph(rows: Vec<f32>, dimensions: usize, connections: usize, search: usize) -> AnyResult<Box<dyn PrototypeSearch>> {
    let params = masf_memory::HnswParams { connections, search, ..Default::default() };
    let search = masf_memory::HnswSearch::new(rows, dimensions, params)?;
    eprintln!("the graph lost {}", search.lost());
    Ok(Box::new(search))
}

#[cfg(not(feature = "hnsw"))]
fn graph(_: Vec<f32>, _: usize, _: usize, _: usize) -> AnyResult<Box<dyn PrototypeSearch>> {
    Err("built without the feature hnsw".into())
}

fn rows(tensor: &Tensor) -> AnyResult<(Vec<f32>, usize)> {
    let (_, dimensions) = tensor.dims2()?;
    Ok((tensor.flatten_all()?.to_vec1()?, dimensions))
}

fn columns(rows: &[f32], dimensions: usize, kept: usize) -> Vec<f32> {
    rows.chunks_exact(dimensions).flat_map(|row| &row[..kept]).copied().collect()
}

fn join(numbers: &[impl ToString]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn milliseconds(start: Instant) -> String {
    format!("{:.4}", start.elapsed().as_secs_f64() * 1e3)
}
