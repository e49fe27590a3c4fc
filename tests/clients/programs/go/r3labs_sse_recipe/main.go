// r3labs/sse made to resume, in four steps.
//
//  1. A buffer above the largest block, since the default of 64 KiB ends the stream at a larger one.
//  2. Subscribe in a loop, since it returns when the server ends the response.
//  3. No back-off of the library's own: it is never reset after a success, and gives up at the first
//     cut that comes more than 15 minutes after Subscribe began.
//  4. A block that was cut is dropped and its id forgotten: the library hands over what had arrived
//     of it, and would go on after it.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/r3labs/sse/v2"
	"gopkg.in/cenkalti/backoff.v1"

	"streamclients/surfaced"
)

const maxBlockBytes = 1 << 20

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()

	client := sse.NewClient(os.Getenv("STREAM_URL"), sse.ClientMaxBufferSize(maxBlockBytes))
	client.ReconnectStrategy = &backoff.StopBackOff{}

	delay := time.Second
	var lastID []byte
	handle := func(msg *sse.Event) {
		if !json.Valid(msg.Data) {
			client.LastEventID.Store(lastID)
			return
		}
		lastID = msg.ID
		if ms, err := strconv.Atoi(string(msg.Retry)); err == nil {
			delay = time.Duration(ms) * time.Millisecond
		}
		surfaced.Print(surfaced.Event{
			Event: string(msg.Event), ID: string(msg.ID), Data: string(msg.Data),
		})
	}

	for ctx.Err() == nil {
		err := client.SubscribeRawWithContext(ctx, handle)
		fmt.Fprintln(os.Stderr, "Subscribe returned:", err)
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		}
	}
}
