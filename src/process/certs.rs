//! `ringgate certs`: asks the running process, or the store if there is none.

use std::collections::HashMap;

use crate::cli::Certs;
use crate::clock::Moment;
use crate::config::Config;
use crate::config::layers::Layers;
use crate::control::admin::{self, Answer, Request};
use crate::control::autocert::prepared::stored_certificates;
use crate::control::autocert::status::Status;
use crate::control::listing::listing;
use crate::control::prepare::{Mode, prepare};

use super::command::Failure;
use super::cores;

/// Does what is asked and prints the outcome.
pub fn certs(config: &Config, layers: &Layers, json: bool, asked: Certs) -> Result<(), Failure> {
    let request = match &asked {
        Certs::List => Request::Certs,
        Certs::Renew { name, force } => Request::Renew { name: name.clone(), force: *force },
        Certs::Revoke { name, reason } => {
            Request::Revoke { name: name.clone(), reason: reason.clone() }
        }
    };
    let rows = match admin::ask(&config.data_dir, &request) {
        Some(Ok(Answer::Certs(rows))) => rows,
        Some(Ok(Answer::Done(said))) => {
            println!("{said}");
            return Ok(());
        }
        Some(Ok(Answer::Failed(why)) | Err(why)) => return Err(Failure::Other(why)),
        None if asked == Certs::List => {
            let data_dir = config.data_dir.display();
            eprintln!(
                "no ringgate is running with the data_dir {data_dir}; this is what is stored, without the local CA's"
            );
            stored(config, layers)?
        }
        None => {
            return Err(Failure::Other(format!(
                "no ringgate is running with the data_dir {}; start it, or name its own with --data-dir",
                config.data_dir.display()
            )));
        }
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&rows).unwrap_or_default());
    } else {
        print!("{}", table(&rows));
    }
    Ok(())
}

fn stored(config: &Config, layers: &Layers) -> Result<Vec<Status>, Failure> {
    let threads = cores::allowed().map_or(1, |cores| cores.len());
    let ports: Vec<_> = config.address.iter().map(|address| address.port()).collect();
    let now = Moment::now();
    let prepared = prepare(config, &ports, None, Mode::Check, threads, now)
        .map_err(|problems| Failure::Configuration(layers.placed(problems)))?;
    let mut all = prepared.by_hand.clone();
    let mut managed = Vec::new();
    if let Some(autocert) = &prepared.autocert {
        for (status, certified) in stored_certificates(autocert) {
            all.extend(certified);
            managed.push(status);
        }
    }
    Ok(listing(&all, managed, &HashMap::new(), now))
}

/// For people: a line for each name, and another where something is wrong.
fn table(rows: &[Status]) -> String {
    let cells = |row: &Status| {
        let text = |cell: &Option<String>| cell.clone().unwrap_or_else(|| "-".into());
        let next = match (&row.next, &row.next_at) {
            (Some(next), Some(at)) => format!("{next} {at}"),
            (Some(next), None) => next.clone(),
            (None, _) => "-".into(),
        };
        let served = format!("{} ({})", row.served, row.why);
        [
            row.name.clone(),
            text(&row.key_type),
            text(&row.not_after),
            text(&row.staple),
            next,
            text(&row.issuer),
            served,
        ]
    };
    let heads =
        ["NAME", "KEY", "NOT AFTER", "STAPLE", "NEXT", "ISSUER", "SERVED"].map(str::to_owned);
    let all: Vec<_> = std::iter::once(heads).chain(rows.iter().map(cells)).collect();
    let mut widths = [0; 7];
    for row in &all {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for (at, row) in all.iter().enumerate() {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
        let status = at.checked_sub(1).and_then(|at| rows.get(at));
        if let Some((error, when)) =
            status.and_then(|row| row.error.as_ref().zip(row.error_at.as_ref()))
        {
            text.push_str(&format!("    {when} failed: {error}\n"));
        }
    }
    text
}
