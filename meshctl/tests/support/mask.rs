//! What differs from one run of a playground to the next, by the shape of its words: times, latencies, sizes, counts and the
//! letters that Kubernetes gives to pods. What takes its place is as wide, so that columns stay where they are.

/// Lines of `tap`.
pub(crate) fn tap(text: &str) -> String {
    // On a busy machine the first request may take its time.
    let lines = text.lines().filter(|line| !line.starts_with("waiting…"));
    lines
        .map(|line| if line.contains(" matched in ") { sum() } else { words(line, of_tap) })
        .collect::<Vec<_>>()
        .join("\n")
}

/// Rows of `playground status`.
pub(crate) fn status(text: &str) -> String {
    text.lines().map(|line| words(line, of_status)).collect::<Vec<_>>().join("\n")
}

/// The last line of `tap -c 1`.
fn sum() -> String {
    "1 of N requests and connections matched in N.Ns (tap ran on 1 of 1 pods)".to_owned()
}

fn of_tap(word: &str) -> Option<String> {
    let is_time = word.len() >= 8 && word.bytes().all(|byte| byte.is_ascii_digit() || b":.".contains(&byte));
    if is_time && word.as_bytes()[2] == b':' {
        return Some("HH:MM:SS.mmm"[..word.len().min(12)].to_owned());
    }
    let number = ["µs", "ms", "s", "KB", "MB", "B"].into_iter().find_map(|unit| word.strip_suffix(unit))?;
    let is_number = number.parse::<f64>().is_ok();
    is_number.then(|| "N".to_owned())
}

fn of_status(word: &str) -> Option<String> {
    if word.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some("N".to_owned());
    }
    let (rest, pod) = word.rsplit_once('-')?;
    let (workload, template) = rest.rsplit_once('-')?;
    let given = pod.len() == 5 && template.len() >= 8;
    given.then(|| format!("{workload}-{}-ppppp", "t".repeat(template.chars().count())))
}

/// Replaces words; blanks after one that gets shorter make up for it.
fn words(line: &str, replace: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut missing = 0;
    for piece in line.split_inclusive(' ') {
        let word = piece.trim_end_matches(' ');
        if word.is_empty() {
            out.push_str(piece);
            continue;
        }
        out.push_str(&" ".repeat(std::mem::take(&mut missing)));
        let with = replace(word);
        let kept = with.as_deref().unwrap_or(word);
        missing = word.chars().count().saturating_sub(kept.chars().count());
        out.push_str(kept);
        out.push_str(&piece[word.len()..]);
    }
    out.trim_end().to_owned()
}

#[test]
fn what_differs_is_masked_and_nothing_moves() {
    for (line, masked) in [
        (
            "10:22:30.397  shop/load   shop/web-v2   POST    /checkout   500     18ms     47B      √",
            "HH:MM:SS.mmm  shop/load   shop/web-v2   POST    /checkout   500     N        N        √",
        ),
        (
            "10:22:30 shop/load shop/web-v2 GET    /items/18 gRPC 2 7.5ms   √",
            "HH:MM:SS shop/load shop/web-v2 GET    /items/18 gRPC 2 N       √",
        ),
        ("waiting… tap runs on 1 of 1 pods; no request", ""),
        (
            "1 of at least 12 requests and connections matched in 0.4s (tap ran on 1 of 1 pods)",
            "1 of N requests and connections matched in N.Ns (tap ran on 1 of 1 pods)",
        ),
    ] {
        assert_eq!(tap(line), masked);
    }
    assert_eq!(
        status("web-v1-zjmbgfzc5f-mz8vk   2/2   0\nmesh-con…hj2s9p-v7lt4   1/1\n9 of 9 pods are ready"),
        "web-v1-tttttttttt-ppppp   2/2   N\nmesh-tttttttttt-ppppp   1/1\nN of N pods are ready"
    );
}
