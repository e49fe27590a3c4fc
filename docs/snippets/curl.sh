#!/usr/bin/env bash
# Prints each event, and after a break goes on after the last one.
id=0
while true; do
  while IFS= read -r line; do
    case $line in
      "event: "*) event=${line#event: } ;;
      "id: "*) next=${line#id: } ;;
      "data: "*) data=${line#data: } ;;
      "") echo "$event $data" && id=$next ;;
    esac
  done < <(curl -fsSN -H "Accept: text/event-stream" -H "Authorization: Bearer $TOKEN" \
    -H "Last-Event-ID: $id" "$STREAM_URL")
  sleep 1
done
