// tmaxmax/go-sse as its README shows it.
package main

import (
	"fmt"
	"net/http"
	"os"

	"github.com/tmaxmax/go-sse"

	"streamclients/surfaced"
)

func main() {
	request, err := http.NewRequest(http.MethodGet, os.Getenv("STREAM_URL"), http.NoBody)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	conn := sse.NewConnection(request)

	conn.SubscribeToAll(func(event sse.Event) {
		surfaced.Print(surfaced.Event{
			Event: event.Type, ID: event.LastEventID, Data: event.Data,
		})
	})

	if err := conn.Connect(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}
