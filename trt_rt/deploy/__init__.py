"""The C++ runtime, which runs engines without Python, and packages of programs for it."""

from trt_rt.deploy.folders import CMAKE_FOLDER, INCLUDE_FOLDER, LIBRARY, LIBRARY_FOLDER, PKG_CONFIG_FOLDER

__all__ = ["CMAKE_FOLDER", "INCLUDE_FOLDER", "LIBRARY", "LIBRARY_FOLDER", "PKG_CONFIG_FOLDER"]
