// The LZW of TIFF 6.0, section 13: codes of 9 to 12 bits, the highest bit first, widened one code early.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rvk {

// Decodes `bytes` (size of them) into `out_size` bytes at `out`; codes behind those are not looked at. Reads up to 8
// bytes behind the input and writes up to 16 behind the output. Returns whether the output is complete; false for codes
// that no encoder writes, and for the reversed bit order of the time before TIFF 5.0.
//
// No string is kept in a table: each one lies somewhere in the output already, so an entry is a place and a length, and
// decoding a code is one copy of a vector, or a few.
bool decode_lzw(const uint8_t* bytes, size_t size, uint8_t* out, size_t out_size);

}  // namespace rvk
