// tmaxmax/go-sse with a buffer above the largest block: the default of 64 KiB ends the stream at a
// larger one, again after every reconnect.
package main

import (
	"fmt"
	"net/http"
	"os"

	"github.com/tmaxmax/go-sse"

	"streamclients/surfaced"
)

const maxBlockBytes = 1 << 20

func main() {
	request, err := http.NewRequest(http.MethodGet, os.Getenv("STREAM_URL"), http.NoBody)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	conn := sse.NewConnection(request)
	conn.Buffer(nil, maxBlockBytes)

	conn.SubscribeToAll(func(event sse.Event) {
		surfaced.Print(surfaced.Event{
			Event: event.Type, ID: event.LastEventID, Data: event.Data,
		})
	})

	if err := conn.Connect(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}
