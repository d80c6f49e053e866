# The suites of tests/run. Each adds to $passed, $failed and $skipped. Sourced.

cage=deploy/lib/cage
minutes=30 # a suite may take; the machine may be small and the build cold

# Runs one thing that passes or fails as a whole. single NAME COMMAND…
single() {
  local name=$1 log=target/tests/${suite:?}-${1// /-}.log
  shift
  if watched "$name" "$log" timeout -k 20 "${minutes}m" "$@"; then
    passed=$((passed + 1))
    note "$name: $(tail -n 1 "$log" | cut -c 1-120)"
  else
    failed=$((failed + 1))
    bad "$name" "$*"
    tail -n 40 "$log"
  fi
}

# Builds what tests need. Counts only if it fails. build NAME COMMAND…
build() {
  local before=$passed
  single "$@"
  [ "$passed" -gt "$before" ] || return 1
  passed=$before
}

# A test that cannot run is never silent. skip COUNT WHY
skip() {
  skipped=$((skipped + $1))
  warn "SKIPPED: $2"
}

# Runs something that counts its own tests. counted NAME COUNTER COMMAND…
counted() {
  local name=$1 counter=$2 log=target/tests/${suite:?}-${1// /-}.log status p f s
  shift 2
  watched "$name" "$log" timeout -k 20 "${minutes}m" "$@"
  status=$?
  read -r p f s < <("$counter" "$log")
  # What ended badly without naming a failed test did not get so far: it did not compile, or was killed.
  if [ "$status" -ne 0 ] && [ "$f" -eq 0 ]; then f=1; fi
  # What ended well and counts nothing is one test.
  if [ "$status" -eq 0 ] && [ $((p + f + s)) -eq 0 ]; then p=1; fi
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  note "$name: $p passed, $f failed, $s skipped"
  if [ "$s" -gt 0 ]; then grep -hE '^SKIPPED|^[!] SKIPPED|^test .* ignored' "$log" | grep -v 'started by' | head -n 20 >&2; fi
  if [ "$f" -gt 0 ]; then
    [ "$status" -eq 124 ] && bad "$name" "was not done after $minutes minutes"
    # A panic's words stand in the lines below it.
    grep -hE -A 4 '^test .* FAILED$|^error(\[|:)|^✗|^FAIL' "$log" | head -n 40
    grep -hE -A 40 'panicked at' "$log" | head -n 160
    note "the end of $log:"
    tail -n 60 "$log"
  fi
}

of_cargo() { # `test result: ok. 5 passed; 0 failed; 1 ignored; …`, once a test program. Helpers that another test starts are no tests.
  awk '/^test .* ignored, started by / { s -= 1 }
       /^test result:/ { for (i = 2; i <= NF; i++) { if ($i == "passed;") p += $(i-1); if ($i == "failed;") f += $(i-1); if ($i == "ignored;") s += $(i-1) } }
       END { print p + 0, f + 0, s + 0 }' "$1"
}

of_summary() { # a last line `N passed, N failed`, or `N passed, N failed, N skipped`
  local line
  line=$(grep -oE '[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?' "$1" | tail -n 1)
  awk '{ print $1 + 0, $3 + 0, $5 + 0 }' <<<"${line:-0}"
}

of_marks() { # a ✓ or ✗ before each row
  echo "$(grep '^✓' "$1" | grep -vc '^✓ build') $(grep -c '^✗' "$1") 0"
}

privileged() { # WHAT
  if [ "$(id -u)" != 0 ]; then skip 1 "$1 needs root, for network namespaces"; return 1; fi
  if [ ! -c /dev/net/tun ]; then skip 1 "$1 needs /dev/net/tun"; return 1; fi
}

# Tests get a cage where they can have one: nothing they start or change outlives them, whatever happens.
caged() { if [ "$(id -u)" = 0 ]; then printf '%s\n' "$cage"; fi; }

# The test targets in the tests/ folders of these crates whose names match (or, with -v, do not match) a pattern.
targets() { # GREP-OPTIONS PATTERN FOLDER…
  local options=$1 pattern=$2 folder
  shift 2
  for folder in "$@"; do
    find "$folder/tests" -maxdepth 1 -name '*.rs' -printf '%f\n' 2>/dev/null
  done | sed 's/\.rs$//' | grep -E $options "$pattern" | sort -u | sed 's/^/--test=/'
}

suite_lint() {
  single formatting cargo fmt --all --check -- --color never
  single clippy cargo clippy --locked --workspace --all-targets -- -D warnings
  single purity-masque tests/lint/purity bauta-masque
  single purity-fec tests/lint/purity bauta-fec
  single licences tests/lint/licences
  single scripts tests/lint/scripts
  if rustc --print target-libdir --target wasm32-unknown-unknown 2>/dev/null | xargs -r test -d; then
    single wasm cargo build --locked --target wasm32-unknown-unknown -p bauta-masque -p bauta-fec
  else
    skip 1 "the pure crates are not built for wasm32-unknown-unknown: rustup target add wasm32-unknown-unknown"
  fi
  if cargo deny --version >/dev/null 2>&1; then
    single cargo-deny cargo deny --workspace check licenses bans sources
    if watched advisories target/tests/lint-advisories.log timeout 120 cargo deny --workspace check advisories; then
      passed=$((passed + 1))
    elif grep -qiE 'failed to (fetch|acquire|clone)|network|could not resolve' target/tests/lint-advisories.log; then
      skip 1 "advisories: their database cannot be fetched here"
    else
      failed=$((failed + 1))
      tail -n 40 target/tests/lint-advisories.log
    fi
  else
    skip 2 "cargo-deny is not here, so that bans and advisories go unchecked: cargo install --locked cargo-deny@0.20.2"
  fi
}

crates=(fec masque masque/io xdp web client gateway)

suite_unit() {
  local found
  mapfile -t found < <(targets -v '^simulation' "${crates[@]}")
  counted libraries of_cargo $(caged) cargo test --locked --no-fail-fast --workspace --exclude bauta-e2e --lib --bins "${found[@]}"
  counted documentation of_cargo $(caged) cargo test --locked --no-fail-fast --workspace --exclude bauta-e2e --doc
  counted benches of_summary tests/bench/tests.py
}

suite_simulation() {
  local found
  mapfile -t found < <(targets '' '^simulation' fec masque)
  if [ ${#found[@]} -eq 0 ]; then skip 1 "there is no simulation yet (masque/tests/simulation*.rs)"; return; fi
  counted simulation of_cargo $(caged) cargo test --locked --no-fail-fast -p bauta-fec -p bauta-masque "${found[@]}"
}

suite_namespaces() {
  privileged namespaces || return
  need_packages iperf3:iperf3 tcpdump:tcpdump traceroute:traceroute dnsmasq:dnsmasq-base \
    pebble:pebble caddy:caddy || { failed=$((failed + 1)); return; }
  counted lab of_cargo "$cage" cargo test --locked --no-fail-fast -p bauta-lab --tests
  if ! compgen -G 'tests/e2e/tests/*.rs' >/dev/null; then skip 1 "there is no end-to-end test yet (tests/e2e/tests)"; return; fi
  build programs cargo build --locked -p bauta-gateway -p bauta -p bauta-lab -p bauta-bench || return
  local without=() why
  if ! why=$(tests/lib/pebble); then
    skip 1 "renewal information has no authority to be tested with: $why"
    without=(-- --skip the_authority_says_when_to_renew)
  fi
  counted end-to-end of_cargo "$cage" cargo test --locked --no-fail-fast -p bauta-e2e "${without[@]}"
  # The core of it once more with datagrams coming in by AF_XDP rings.
  local core=(--test=tunnel --test=flows --test=site --test=mtu --test=restarts)
  counted rings-native of_cargo "$cage" env BAUTA_E2E_INGRESS=native cargo test --locked --no-fail-fast -p bauta-e2e "${core[@]}"
  counted rings-skb of_cargo "$cage" env BAUTA_E2E_INGRESS=skb cargo test --locked --no-fail-fast -p bauta-e2e --test=tunnel
  single bench-smoke env BAUTA_PROFILE=debug tests/bench/run --smoke
}

# Groups of tests/interop/run. It prepares itself by apt among others, which must not happen in a cage.
interop() { # NAME GROUP…
  local name=$1
  shift
  privileged "$name" || return
  if [ ! -x tests/interop/run ]; then skip 1 "$name: there is no tests/interop/run"; return; fi
  build setup tests/interop/setup || return
  build programs cargo build --locked -p bauta-gateway -p bauta || return
  counted "$name" of_summary env INTEROP_TIMEOUT=$((minutes * 60)) "$cage" tests/interop/run "$@"
}

suite_interop() {
  local groups=(aioquic client)
  if command -v go >/dev/null; then groups+=(go); else skip 1 "the Go programs need Go (https://go.dev/dl)"; fi
  interop interop "${groups[@]}"
}

suite_browsers() { interop browsers chromium firefox; }

suite_probes() {
  privileged probes || return
  build setup tests/interop/setup || return
  build programs cargo build --locked -p bauta-gateway || return
  counted probes of_summary tests/probes/run
}

suite_quickstart() {
  privileged quickstart || return
  counted quickstart of_marks deploy/quickstart --once --port 18443
}
