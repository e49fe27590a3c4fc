-- Included by the append scripts: bounds a stream in bytes.
--
-- Above the bound the oldest messages are deleted, with the transient entries among them, down to
-- three quarters of it. The newest message stays. Returns by how many bytes the rest is still
-- above three quarters: transient entries after the newest message can be that large.

local function cut_to_bytes(key, bound_bytes)
  -- SAMPLES 0 measures every node of the stream: the size of the oldest says nothing of the newest.
  -- A server that refuses the command returns a table, and the entries are counted below.
  local used = redis.pcall('MEMORY', 'USAGE', key, 'SAMPLES', 0)
  if type(used) == 'number' and used <= bound_bytes then
    return 0
  end
  local PAGE, ENTRY_OVERHEAD_BYTES = 50, 64
  local goal = bound_bytes * 3 / 4
  local size, oldest, upto = 0, nil, '+'
  repeat
    local entries = redis.call('XREVRANGE', key, upto, '-', 'COUNT', PAGE)
    for _, entry in ipairs(entries) do
      local with_it = size + #entry[2][4] + ENTRY_OVERHEAD_BYTES
      if oldest and with_it > goal then
        redis.call('XTRIM', key, 'MINID', '=', oldest)
        return math.max(0, size - goal)
      end
      size = with_it
      if string.sub(entry[1], -2) == '-0' then
        oldest = entry[1]
      end
      upto = '(' .. entry[1]
    end
  until #entries < PAGE
  return math.max(0, size - goal)
end
