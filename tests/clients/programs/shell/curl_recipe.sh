#!/usr/bin/env bash
# curl -N in a loop that resumes: the last id in a file, since a pipe's loop is another process.
last=$(mktemp)
trap 'rm -f "$last"' EXIT
fields() { printf '%s' "$1" | sed 's/[\\"]/\\&/g'; }

while true; do
  curl --silent --show-error --no-buffer --header 'Accept: text/event-stream' \
    --header "Last-Event-ID: $(cat "$last")" "$STREAM_URL" | while IFS= read -r line; do
    case $line in
      'event: '*) event=${line#event: } ;;
      'id: '*) id=${line#id: } ;;
      'data: '*) data=${line#data: } ;;
      '')
        if [ -n "$data" ]; then
          printf '{"event":"%s","id":"%s","data":"%s"}\n' "$event" "$id" "$(fields "$data")"
          [ -z "$id" ] || printf '%s' "$id" >"$last"
        fi
        event='' id='' data=''
        ;;
    esac
  done
  sleep 1
done
