-- Part of the append scripts, put in by the loader: bounds a stream in bytes.
--
-- Above the bound the oldest messages go, with the transient entries before and after them, to
-- three quarters of it; the newest message never. Returns by how many bytes what is left is still
-- above that: transient entries after the newest message.

local function cut_to_bytes(key, bound_bytes)
  -- Every node: a sample of the oldest says nothing of the newest. A server that refuses the
  -- command gives a table here.
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
