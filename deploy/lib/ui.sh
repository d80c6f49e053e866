# What the scripts say, and how: one line a thing, aligned, colour on a terminal only. Sourced.

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
  _bold=$'\e[1m' _dim=$'\e[2m' _red=$'\e[31m' _green=$'\e[32m' _yellow=$'\e[33m' _off=$'\e[0m'
else
  _bold='' _dim='' _red='' _green='' _yellow='' _off=''
fi

step() { printf '%s→ %-14s%s %s\n' "$_bold" "$1" "$_off" "${2:-}"; }
ok() { printf '%s✓%s %-14s %s\n' "$_green" "$_off" "$1" "${2:-}"; }
bad() { printf '%s✗%s %-14s %s\n' "$_red" "$_off" "$1" "${2:-}"; }
note() { printf '  %s%s%s\n' "$_dim" "$*" "$_off"; }
warn() { printf '%s!%s %s\n' "$_yellow" "$_off" "$*" >&2; }
die() { printf '%s✗ %s%s\n' "$_red" "$*" "$_off" >&2; exit 1; }

# Seconds as a person reads them.
elapsed() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

# Runs a program whose output goes to a file, and shows that it is alive: on a terminal its last line, else a line every 30 seconds.
# The kernel ends it when this shell is killed.
# watched NAME LOG PROGRAM…
watched() {
  local name=$1 log=$2 start=$SECONDS said=0 pid last
  shift 2
  setpriv --pdeathsig TERM "$@" >"$log" 2>&1 </dev/null &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.5
    if [ -t 1 ]; then
      last=$(tail -n 1 "$log" | tr -d '\r' | cut -c "1-$((${COLUMNS:-80} - 26))")
      printf '\r\e[K%s… %-14s %s %s%s' "$_dim" "$name" "$(elapsed $((SECONDS - start)))" "$last" "$_off"
    elif ((SECONDS - start - said >= 30)); then
      said=$((SECONDS - start))
      note "$(printf '%-14s %s %s' "$name" "$(elapsed "$said")" "$(tail -n 1 "$log" | cut -c 1-100)")"
    fi
  done
  [ -t 1 ] && printf '\r\e[K'
  wait "$pid"
}
