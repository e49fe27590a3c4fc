const source = new EventSource(`/v1/projects/demo/chat/stream?tail=50&token=${token}`);
for (const name of ["message.new", "message.replay"])
  source.addEventListener(name, (event) => show(JSON.parse(event.data)));
for (const name of ["replay.end", "stream.reset"])
  source.addEventListener(name, () => location.reload());
