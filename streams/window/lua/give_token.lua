-- Return a token to a bucket that all processes share: the action it was taken for was not done.
--
-- KEYS[1]  the bucket
-- ARGV[1]  tokens per second
-- ARGV[2]  how many tokens the bucket holds at most
--
-- A bucket that has expired was full. The tokens gained since the last take are added at the next
-- take, which limits them to ARGV[2].

local key = KEYS[1]
local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local state = redis.call('HMGET', key, 'tokens', 'at')
if not state[1] then
  return 0
end
local tokens = math.min(burst, tonumber(state[1]) + 1)
redis.call('HSET', key, 'tokens', string.format('%.4f', tokens))
redis.call('PEXPIRE', key, math.ceil(burst * 1000 / rate) + 1000)
return 1
