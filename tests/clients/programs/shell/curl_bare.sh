#!/usr/bin/env bash
# curl -N, and a loop that reads lines: one connection.
fields() { printf '%s' "$1" | sed 's/[\\"]/\\&/g'; }

curl --silent --show-error --no-buffer "$STREAM_URL" | while IFS= read -r line; do
  case $line in
    'event: '*) event=${line#event: } ;;
    'id: '*) id=${line#id: } ;;
    'data: '*) data=${line#data: } ;;
    '')
      if [ -n "$data" ]; then
        printf '{"event":"%s","id":"%s","data":"%s"}\n' "$event" "$id" "$(fields "$data")"
      fi
      event='' id='' data=''
      ;;
  esac
done
